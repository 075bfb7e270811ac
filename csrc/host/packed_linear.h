// y = W x + b for one vector, the same bits on every machine.
//
// Each output is the bias plus one sum for each 16 inputs, products added in the inputs' order,
// everything rounded on its own; only different outputs share a SIMD register, so that its width
// does not matter.
#pragma once

#include <cstdint>
#include <vector>

// The compiler makes one copy per instruction set, picked when the library is loaded.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FASTCODEC_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FASTCODEC_CLONES
#endif

namespace fastcodec {

constexpr int64_t kLanes = 16;
constexpr int64_t kPanel = 64;
inline int64_t PaddedTo(int64_t multiple, int64_t n) {
  return (n + multiple - 1) / multiple * multiple;
}

class PackedLinear {
 public:
  PackedLinear() = default;
  // weight [outputs][inputs] and bias [outputs] are copied.
  PackedLinear(const float* weight, const float* bias, int64_t outputs, int64_t inputs);
  // x [inputs] -> y [PaddedTo(kPanel, outputs)], zero in the padding.
  void Apply(const float* x, float* y) const;

 private:
  int64_t inputs_ = 0;
  std::vector<float> bias_;    // [panels][kPanel]
  std::vector<float> weight_;  // [panels][inputs][kPanel]
};

// y[i] += a * x[i], n a multiple of kLanes.
void AddScaled(float a, const float* x, int64_t n, float* y);

}  // namespace fastcodec
