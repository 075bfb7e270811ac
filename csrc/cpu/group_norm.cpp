// Normalisation over all channels and frames: sums in double, and the affine map.
#include <algorithm>

#include "isa.h"
#include "vec.h"

namespace FASTCODEC_ISA_NS {

// Adds sum and sum of squares of x[0..count) to the two totals. Sixteen sums side by side, whatever
// the register width; a product of two floats is exact in double.
void moments(const float* x, int64_t count, double* sum, double* square) {
  constexpr int kSums = 16;
  double sums[kSums] = {}, squares[kSums] = {};
  const int64_t full = count / kSums * kSums;
  for (int64_t i = 0; i < full; i += kSums) {
    for (int n = 0; n < kSums; ++n) {
      const double v = x[i + n];
      sums[n] += v;
      squares[n] += v * v;
    }
  }
  for (int64_t i = full; i < count; ++i) {
    const double v = x[i];
    sums[i - full] += v;
    squares[i - full] += v * v;
  }
  for (int n = 0; n < kSums; ++n) {
    *sum += sums[n];
    *square += squares[n];
  }
}

// out = x * scale + shift, one pair a channel; [frames][channels].
void affine(const float* x, const float* scale, const float* shift, int64_t frames,
            int64_t channels, float* out) {
  for (int64_t t = 0; t < frames; ++t, x += channels, out += channels) {
    for (int64_t c = 0; c < channels; c += kLanes) {
      const int n = static_cast<int>(std::min<int64_t>(kLanes, channels - c));
      if (n == kLanes) {
        store(out + c, fma(load(x + c), load(scale + c), load(shift + c)));
      } else {
        const V y = fma(load_part(x + c, n), load_part(scale + c, n), load_part(shift + c, n));
        store_part(out + c, y, n);
      }
    }
  }
}

}  // namespace FASTCODEC_ISA_NS
