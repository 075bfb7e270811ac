// snake: x + sin^2(alpha x) / (beta + 1e-9), one alpha and beta a channel, and its gradients.
//
// The polynomials are those of csrc/cpu/vec.h, of the part of a half turn that alpha x is past a
// whole number of them: a product and a sine would be further from the exact value.
#include "cuda/device.cuh"
#include "cuda/snake.cuh"

namespace fastcodec {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kAll = 0xffffffffu;
constexpr float kReducible = 4194304.0f;  // half turns; beyond, float32 has too few digits

struct Channel {
  float turns, turns_low, inverse_beta;
  __device__ __forceinline__ Channel(float alpha, float beta) {
    constexpr float kInversePi = 0.318309886f, kRest = 1.28412766e-8f;  // 1 / pi - kInversePi
    turns = alpha * kInversePi;
    turns_low = fmaf(alpha, kInversePi, -turns) + alpha * kRest;
    inverse_beta = 1.0f / (beta + 1e-9f);
  }
};

__device__ __forceinline__ float half_turns(float x, const Channel& c) {
  const float whole = rintf(x * c.turns);
  if (fabsf(whole) > kReducible && fabsf(whole) < INFINITY) {
    const double exact = (static_cast<double>(c.turns) + c.turns_low) * x;
    return static_cast<float>(rint(exact) - exact);
  }
  return fmaf(-x, c.turns_low, fmaf(-x, c.turns, whole));
}

// sin(pi f)^2 / f^2 of s = f^2, |f| <= 1/2.
__device__ __forceinline__ float sin_squared_over(float s) {
  float p = fmaf(-3.33621097f, s, 13.0371122f);
  p = fmaf(p, s, -30.0985527f);
  p = fmaf(p, s, 42.7269287f);
  p = fmaf(p, s, -32.4696617f);
  return fmaf(p, s, 9.86960411f);
}

// sin(2 pi f) / f of s = f^2.
__device__ __forceinline__ float sin_double_over(float s) {
  float p = fmaf(3.23849487f, s, -14.900115f);
  p = fmaf(p, s, 42.026001f);
  p = fmaf(p, s, -76.7030258f);
  p = fmaf(p, s, 81.6051331f);
  p = fmaf(p, s, -41.3417015f);
  return fmaf(p, s, 6.28318548f);
}

__device__ __forceinline__ float snake_of(float x, const Channel& c) {
  const float f = half_turns(x, c), s = f * f;
  return fmaf(sin_squared_over(s), s * c.inverse_beta, x);
}

__device__ __forceinline__ float4 quad(const float* p) {
  return *reinterpret_cast<const float4*>(p);
}

// Element i in memory order belongs to channel (i / inner) % channels: of kOneRun a vector has one
// channel, else its channels follow each other.
template <bool kOneRun>
__device__ __forceinline__ float4 snake_of(float4 v, const float* alpha, const float* beta,
                                           int64_t channel) {
  if constexpr (kOneRun) {
    const Channel c(alpha[channel], beta[channel]);
    return make_float4(snake_of(v.x, c), snake_of(v.y, c), snake_of(v.z, c), snake_of(v.w, c));
  } else {
    const float4 a = quad(alpha + channel), b = quad(beta + channel);
    return make_float4(snake_of(v.x, Channel(a.x, b.x)), snake_of(v.y, Channel(a.y, b.y)),
                       snake_of(v.z, Channel(a.z, b.z)), snake_of(v.w, Channel(a.w, b.w)));
  }
}

// Index is 32 bits where the count allows: a division of 64 takes as long as all the rest.
template <bool kOneRun, typename Index>
__global__ void __launch_bounds__(kThreads)
    _vector_kernel(const float* x, const float* __restrict__ alpha, const float* __restrict__ beta,
                   float* out, Index quads, Index channels, Index inner) {
  constexpr int kEach = 4;
  const Index step = static_cast<Index>(blockDim.x) * kEach;
  for (int64_t tile = blockIdx.x; tile * step < quads; tile += gridDim.x) {
    const Index first = static_cast<Index>(tile) * step + threadIdx.x;
    float4 v[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const Index at = first + i * blockDim.x;
      if (at < quads) v[i] = quad(x + 4 * static_cast<int64_t>(at));
    }
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const Index at = first + i * blockDim.x;
      if (at >= quads) continue;
      const Index channel = kOneRun ? at / (inner / 4) % channels : 4 * (at % (channels / 4));
      *reinterpret_cast<float4*>(out + 4 * static_cast<int64_t>(at)) =
          snake_of<kOneRun>(v[i], alpha, beta, channel);
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    _scalar_kernel(const float* x, const float* __restrict__ alpha, const float* __restrict__ beta,
                   float* out, int64_t count, int64_t channels, int64_t inner) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    const int64_t c = i / inner % channels;
    out[i] = snake_of(x[i], Channel(alpha[c], beta[c]));
  }
}

template <typename Index>
cudaError_t by_vectors(const SnakePlan& plan, const float* x, const float* alpha, const float* beta,
                       float* out, int64_t count, int64_t channels, int64_t inner,
                       cudaStream_t stream) {
  return launch(plan.launch, stream,
                inner > 1 ? _vector_kernel<true, Index> : _vector_kernel<false, Index>, x, alpha,
                beta, out, count / 4, channels, inner);
}

// One block a tile of frames and 32 neighbouring channels, a warp each eighth frame of them; where
// frames are side by side, a warp a channel and a lane each 32nd frame.
template <bool kFramesAdjacent>
__global__ void __launch_bounds__(kThreads) _gradients_kernel(SnakeBackward p) {
  double* shared = reinterpret_cast<double*>(shared_memory());
  constexpr int kWarps = kThreads / 32;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t tiles = (p.frames + kSnakeTile - 1) / kSnakeTile;
  const int64_t width = kFramesAdjacent ? kWarps : 32;
  const int64_t groups = (p.channels + width - 1) / width;
  const int64_t tile = static_cast<int64_t>(blockIdx.x) / groups, b = tile / tiles;
  const int64_t first = static_cast<int64_t>(blockIdx.x) % groups * width;
  const int64_t channel = first + (kFramesAdjacent ? warp : lane);
  const int64_t begin = tile % tiles * kSnakeTile;
  const int64_t end = begin + kSnakeTile < p.frames ? begin + kSnakeTile : p.frames;
  double of_alpha = 0, of_beta = 0;
  if (channel < p.channels) {
    const float alpha = p.alpha[channel];
    const Channel c(alpha, p.beta[channel]);
    const int64_t base = b * p.batch_stride + channel * p.channel_stride;
    for (int64_t t = begin + (kFramesAdjacent ? lane : warp); t < end;
         t += kFramesAdjacent ? 32 : kWarps) {
      const int64_t at = base + t * p.frame_stride;
      const float x = p.x[at], grad = p.grad[at], f = half_turns(x, c), s = f * f;
      const float slope = grad * (f * sin_double_over(s));  // f is the negative one
      p.dx[at] = fmaf(-slope, alpha * c.inverse_beta, grad);
      of_alpha -= static_cast<double>(slope) * x;
      of_beta += static_cast<double>(grad) * (s * sin_squared_over(s));
    }
  }
  if constexpr (kFramesAdjacent) {
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      of_alpha += __shfl_xor_sync(kAll, of_alpha, lanes);
      of_beta += __shfl_xor_sync(kAll, of_beta, lanes);
    }
    if (lane != 0) return;
  } else {
    shared[2 * threadIdx.x] = of_alpha, shared[2 * threadIdx.x + 1] = of_beta;
    __syncthreads();
    if (warp != 0) return;
    for (int w = 1; w < kWarps; ++w) {
      of_alpha += shared[2 * (32 * w + lane)], of_beta += shared[2 * (32 * w + lane) + 1];
    }
  }
  if (channel >= p.channels) return;
  p.sums[tile * p.channels + channel] = of_alpha;
  p.sums[(p.batch * tiles + tile) * p.channels + channel] = of_beta;
}

// The tiles' sums in their order.
__global__ void __launch_bounds__(kThreads) _parameters_kernel(SnakeBackward p, int64_t tiles) {
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (channel >= p.channels) return;
  double of_alpha = 0, of_beta = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    of_alpha += p.sums[tile * p.channels + channel];
    of_beta += p.sums[(tiles + tile) * p.channels + channel];
  }
  const double inverse = Channel(p.alpha[channel], p.beta[channel]).inverse_beta;
  p.d_alpha[channel] = static_cast<float>(of_alpha * inverse);
  p.d_beta[channel] = static_cast<float>(-of_beta * inverse * inverse);
}

}  // namespace

cudaError_t snake(const float* x, const float* alpha, const float* beta, float* out, int64_t count,
                  int64_t channels, int64_t inner, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  if (beta == nullptr) beta = alpha;
  const auto at = [](const float* p) { return reinterpret_cast<uintptr_t>(p); };
  const bool aligned = (at(x) | at(alpha) | at(beta) | at(out)) % 16 == 0;
  const SnakePlan plan = plan_snake(count, channels, inner, aligned);
  if (plan.vector == 1) {
    return launch(plan.launch, stream, _scalar_kernel, x, alpha, beta, out, count, channels, inner);
  }
  constexpr int64_t kSmall = int64_t{1} << 30;  // with the last tile's overhang, below 2^31
  return (count / 4 < kSmall && inner < kSmall
              ? by_vectors<int>
              : by_vectors<int64_t>)(plan, x, alpha, beta, out, count, channels, inner, stream);
}

cudaError_t snake_backward(const SnakeBackward& p, cudaStream_t stream) {
  const int64_t tiles = snake_tiles(p.batch, p.frames);
  const bool frames_adjacent = p.channel_stride != 1;
  const int64_t width = frames_adjacent ? kThreads / 32 : 32;
  const Launch gradients = {tiles * ((p.channels + width - 1) / width), kThreads, 1,
                            frames_adjacent ? 0 : int64_t{2} * kThreads * 8};
  if (gradients.blocks > 0) {
    const cudaError_t error = launch(
        gradients, stream, frames_adjacent ? _gradients_kernel<true> : _gradients_kernel<false>, p);
    if (error != cudaSuccess) return error;
  }
  const Launch parameters = {(p.channels + kThreads - 1) / kThreads, kThreads, 1, 0};
  if (parameters.blocks == 0) return cudaSuccess;
  return launch(parameters, stream, _parameters_kernel, p, tiles);
}

}  // namespace fastcodec
