// Which kernel table runs: the best the processor has, or the one FASTCODEC_ISA names.
#include "isa.h"

#include <cstdlib>
#include <cstring>

namespace avx2 {
const fastcodec::Kernels& table();
}
namespace avx512 {
const fastcodec::Kernels& table();
}
namespace avx512_bf16 {
const fastcodec::Kernels& table();
}

namespace fastcodec {
namespace {

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

struct Variant {
  const char* name;
  bool (*runs)();
  const Kernels& (*table)();
  const char* why_not;
};
constexpr Variant kVariants[] = {
    // the best first
    {"avx512_bf16", has_avx512_bf16, avx512_bf16::table,
     "FASTCODEC_ISA=avx512_bf16, but this processor has no AVX-512 BF16"},
    {"avx512", has_avx512, avx512::table,
     "FASTCODEC_ISA=avx512, but this processor has no AVX-512 F/BW/DQ/VL"},
    {"avx2", has_avx2, avx2::table, "this processor has no AVX2 with FMA"}};

struct Choice {
  const Kernels* kernels = nullptr;
  const char* why_not = nullptr;
};

Choice choose() {
  const char* asked = std::getenv("FASTCODEC_ISA");
  const bool any = asked == nullptr || *asked == '\0';
  if (!any && std::strcmp(asked, "reference") == 0) return {nullptr, "FASTCODEC_ISA=reference"};
  const char* why_not = "FASTCODEC_ISA is none of avx512_bf16, avx512, avx2, reference";
  for (const Variant& v : kVariants) {
    if (!any && std::strcmp(asked, v.name) != 0) continue;
    if (v.runs()) return {&v.table(), nullptr};
    why_not = v.why_not;
  }
  return {nullptr, why_not};
}

const Choice& choice() {
  static const Choice kChoice = choose();
  return kChoice;
}

}  // namespace

const Kernels* kernels() { return choice().kernels; }

}  // namespace fastcodec

// For Python, by ctypes: the name of the table in use, or null and the reason.
extern "C" __attribute__((visibility("default"))) const char* fastcodec_isa() {
  return fastcodec::kernels() != nullptr ? fastcodec::kernels()->name : nullptr;
}
extern "C" __attribute__((visibility("default"))) const char* fastcodec_isa_why_not() {
  return fastcodec::choice().why_not;
}
