// Probabilities as cumulative counts out of 2^24, the arithmetic coder's input.
#pragma once

#include <cstdint>

namespace fastcodec {

// Upstream's float32 arithmetic, operation by operation (facebookresearch/encodec
// encodec/quantization/ac.py@0e2d0aed build_stable_quantized_cdf): probabilities rounded down to a
// multiple of 1e-8, at least 2 counts a symbol. Throws where `pdf` [size] is no distribution.
void QuantizedCdf(const float* pdf, int64_t size, int32_t* cdf);

// Takes what rounding put above 2^24 from the widest symbol. Upstream has no such step: there, the
// last symbols of a very peaked distribution cannot be coded.
void FitTotal(int64_t size, int32_t* cdf);

}  // namespace fastcodec
