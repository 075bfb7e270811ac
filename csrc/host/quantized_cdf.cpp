#include "quantized_cdf.h"

#include <cmath>
#include <stdexcept>

#include "arithmetic_coder.h"

namespace fastcodec {
namespace {

constexpr int32_t kMinRange = 2;

}  // namespace

void QuantizedCdf(const float* pdf, int64_t size, int32_t* cdf) {
  if (size < 1 || size > kTotalRange / kMinRange) {
    throw std::invalid_argument("quantized_cdf: 1 to 2^23 symbols are possible, got " +
                                std::to_string(size));
  }
  const double alpha = static_cast<double>(kMinRange * size) / kTotalRange;
  const auto scale = static_cast<float>((1 - alpha) * kTotalRange);
  const float roundoff = 1e-8f;
  int64_t total = 0;
  for (int64_t i = 0; i < size; ++i) {
    if (!(pdf[i] >= 0.0f && pdf[i] <= 1.001f)) {
      throw std::invalid_argument("quantized_cdf: probabilities must be in [0, 1], got " +
                                  std::to_string(pdf[i]) + "; do the weights hold NaN?");
    }
    const float rounded = std::floor(pdf[i] / roundoff) * roundoff;
    total += static_cast<int64_t>(std::floor(scale * rounded)) + kMinRange;
    // 2^25 is what the coder's products have room for; upstream's totals exceed 2^24 by a few.
    if (total > 2 * int64_t{kTotalRange}) {
      throw std::invalid_argument("quantized_cdf: the probabilities add up to more than 1");
    }
    cdf[i] = static_cast<int32_t>(total);
  }
}

void FitTotal(int64_t size, int32_t* cdf) {
  const int32_t excess = cdf[size - 1] - kTotalRange;
  if (excess <= 0) return;
  int64_t widest = 0;
  int32_t width = cdf[0];
  for (int64_t i = 1; i < size; ++i) {
    if (cdf[i] - cdf[i - 1] > width) {
      width = cdf[i] - cdf[i - 1];
      widest = i;
    }
  }
  if (width - excess < kMinRange) {
    throw std::invalid_argument("quantized_cdf: the probabilities add up to more than 1");
  }
  for (int64_t i = widest; i < size; ++i) cdf[i] -= excess;
}

}  // namespace fastcodec
