#include "cpu_report.h"

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace fastcodec {

#if defined(__x86_64__)
namespace {

enum Register { kEax, kEbx, kEcx, kEdx };

struct Leaf {
  unsigned value[4] = {0, 0, 0, 0};
  explicit Leaf(unsigned leaf, unsigned subleaf = 0) {
    __get_cpuid_count(leaf, subleaf, &value[0], &value[1], &value[2], &value[3]);
  }
  bool bit(Register r, int bit) const { return (value[r] >> bit) & 1; }
};

// XCR0: the register files whose state the operating system saves.
uint64_t EnabledState(const Leaf& leaf1) {
  const int osxsave = 27;
  if (!leaf1.bit(kEcx, osxsave)) return 0;
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

std::string Brand() {
  char text[49] = {};
  if (Leaf(0x80000000).value[kEax] < 0x80000004) return "";
  for (unsigned i = 0; i < 3; ++i) {
    const Leaf leaf(0x80000002 + i);
    std::memcpy(text + 16 * i, leaf.value, 16);
  }
  const std::string brand = text;
  const size_t first = brand.find_first_not_of(' ');
  return first == std::string::npos ? "" : brand.substr(first, brand.find_last_not_of(' ') + 1);
}

}  // namespace

CpuReport ReportCpu() {
  const Leaf leaf1(1), leaf7(7), leaf7_1(7, 1);
  const uint64_t state = EnabledState(leaf1);
  const bool avx = (state & 0x6) == 0x6;
  const bool avx512 = (state & 0xe6) == 0xe6;
  const bool amx = (state & 0x60000) == 0x60000;
  return {Brand(),
          {
              {"sse4_2", leaf1.bit(kEcx, 20)},
              {"avx2", avx && leaf7.bit(kEbx, 5)},
              {"fma", avx && leaf1.bit(kEcx, 12)},
              {"bmi2", leaf7.bit(kEbx, 8)},
              {"f16c", avx && leaf1.bit(kEcx, 29)},
              {"avx_vnni", avx && leaf7_1.bit(kEax, 4)},
              {"avx512f", avx512 && leaf7.bit(kEbx, 16)},
              {"avx512bw", avx512 && leaf7.bit(kEbx, 30)},
              {"avx512dq", avx512 && leaf7.bit(kEbx, 17)},
              {"avx512vl", avx512 && leaf7.bit(kEbx, 31)},
              {"avx512_vnni", avx512 && leaf7.bit(kEcx, 11)},
              {"avx512_bf16", avx512 && leaf7_1.bit(kEax, 5)},
              {"avx512_fp16", avx512 && leaf7.bit(kEdx, 23)},
              {"amx_tile", amx && leaf7.bit(kEdx, 24)},
              {"amx_int8", amx && leaf7.bit(kEdx, 25)},
              {"amx_bf16", amx && leaf7.bit(kEdx, 22)},
          }};
}
#else
CpuReport ReportCpu() { return {}; }
#endif

}  // namespace fastcodec
