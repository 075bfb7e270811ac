// Sum of the code words of a frame, stage by stage: a thread has four features, or one.
//
// A code of -1 adds nothing; one outside -1 .. N - 1 makes the frame NaN, since to refuse it would
// take a wait for the GPU.
#include "cuda/device.cuh"
#include "cuda/rvq_decode.cuh"

namespace fastcodec {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kMostBlocks = 1 << 20;

template <int kFeatures>
__global__ void __launch_bounds__(kThreads) _decode_kernel(RvqDecode p) {
  const int64_t parts = p.features / kFeatures, all = p.rows * parts;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < all;
       i += step) {
    const int64_t row = i / parts, first = i % parts * kFeatures;
    const int64_t* codes = p.codes + row / p.frames * p.by_batch + row % p.frames * p.by_frame;
    float sums[kFeatures] = {};
#pragma unroll 4
    for (int k = 0; k < p.stages; ++k) {
      const int64_t word = codes[k * p.by_stage];
      if (word == -1) continue;
      const bool valid = word >= 0 && word < p.words;
      const float* e = p.codebooks + (int64_t{1} * k * p.words + (valid ? word : 0)) * p.features;
      if constexpr (kFeatures == 4) {
        const float4 four = *reinterpret_cast<const float4*>(e + first);
        sums[0] += four.x, sums[1] += four.y, sums[2] += four.z, sums[3] += four.w;
      } else {
        sums[0] += e[first];
      }
      if (!valid) {
        for (float& sum : sums) sum = NAN;
      }
    }
    float* out = p.out + row * p.features + first;
    if constexpr (kFeatures == 4) {
      *reinterpret_cast<float4*>(out) = make_float4(sums[0], sums[1], sums[2], sums[3]);
    } else {
      *out = sums[0];
    }
  }
}

}  // namespace

cudaError_t rvq_decode(const RvqDecode& p, cudaStream_t stream) {
  const int features = p.features % 4 == 0 ? 4 : 1;
  const int64_t blocks = (p.rows * (p.features / features) + kThreads - 1) / kThreads;
  const Launch plan = {blocks < kMostBlocks ? blocks : kMostBlocks, kThreads, 1, 0};
  return features == 4 ? launch(plan, stream, _decode_kernel<4>, p)
                       : launch(plan, stream, _decode_kernel<1>, p);
}

}  // namespace fastcodec
