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

namespace fastcodec {
namespace {

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

struct Choice {
  const Kernels* kernels = nullptr;
  const char* why_not = nullptr;
};

Choice choose() {
  const char* asked = std::getenv("FASTCODEC_ISA");
  const bool any = asked == nullptr || *asked == '\0';
  if (!any && std::strcmp(asked, "reference") == 0) return {nullptr, "FASTCODEC_ISA=reference"};
  if (!any && std::strcmp(asked, "avx512") != 0 && std::strcmp(asked, "avx2") != 0) {
    return {nullptr, "FASTCODEC_ISA is none of avx512, avx2, reference"};
  }
  if (any || std::strcmp(asked, "avx512") == 0) {
    if (has_avx512()) return {&avx512::table(), nullptr};
    if (!any)
      return {nullptr, "FASTCODEC_ISA=avx512, but this processor has no AVX-512 F/BW/DQ/VL"};
  }
  if (has_avx2()) return {&avx2::table(), nullptr};
  return {nullptr, "this processor has no AVX2 with FMA"};
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
