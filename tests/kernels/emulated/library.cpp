// The launchers of csrc/cuda on the emulated GPU, with plain C arguments for ctypes.
#include <vector>

#include "cuda/device.cuh"
#include "cuda/lstm.cuh"
#include "cuda/rvq_decode.cuh"
#include "cuda/rvq_encode.cuh"
#include "cuda/snake.cuh"

#define FASTCODEC_C extern "C" __attribute__((visibility("default")))

FASTCODEC_C void run_backwards(int on) { emulated::backwards = on != 0; }

// x: [B, D, T] by strides. False: no plan.
FASTCODEC_C int rvq_encode(const float* x, const int64_t* strides, const float* codebooks,
                           int64_t* codes, int64_t batch, int64_t frames, int features, int words,
                           int stages, int capability) {
  fastcodec::RvqPlan plan{};
  if (!fastcodec::plan_rvq_encode(batch * frames, words, features, capability, &plan)) return 0;
  std::vector<float> offsets(stages * plan.launch.cluster * fastcodec::rvq_slice(words, plan) + 4);
  float* aligned = offsets.data() + 4 - reinterpret_cast<uintptr_t>(offsets.data()) / 4 % 4;
  fastcodec::RvqEncode p{};
  p.x = x, p.x_batch = strides[0], p.x_channel = strides[1], p.x_frame = strides[2];
  p.codebooks = codebooks, p.offsets = aligned, p.codes = codes;
  p.rows = batch * frames, p.frames = frames;
  p.features = features, p.words = words, p.stages = stages;
  return fastcodec::rvq_encode(p, plan, nullptr) == cudaSuccess;
}

FASTCODEC_C void rvq_decode(const int64_t* codes, const int64_t* strides, const float* codebooks,
                            float* out, int64_t batch, int64_t frames, int features, int words,
                            int stages) {
  fastcodec::rvq_decode({codes, strides[0], strides[1], strides[2], codebooks, out, batch * frames,
                         frames, features, words, stages},
                        nullptr);
}

FASTCODEC_C void snake(const float* x, const float* alpha, const float* beta, float* out,
                       int64_t count, int64_t channels, int64_t inner) {
  fastcodec::snake(x, alpha, beta, out, count, channels, inner, nullptr);
}

FASTCODEC_C void snake_backward(const float* grad, const float* x, const float* alpha,
                                const float* beta, float* dx, float* d_alpha, float* d_beta,
                                int64_t batch, int64_t channels, int64_t frames, int time_major) {
  std::vector<double> sums(2 * fastcodec::snake_tiles(batch, frames) * channels);
  fastcodec::snake_backward(
      {grad, x, alpha, beta, dx, d_alpha, d_beta, sums.data(), batch, channels, frames,
       channels * frames, time_major ? 1 : frames, time_major ? channels : 1},
      nullptr);
}

// One layer. x: [B, H, T] by strides, also the skip where wanted.
FASTCODEC_C int lstm_layer(const float* x, const int64_t* strides, const float* weight_ih,
                           const float* weight_hh, const float* bias_ih, const float* bias_hh,
                           const float* h_in, const float* c_in, float* h_out, float* c_out,
                           float* out, int64_t batch, int64_t frames, int hidden, int skip,
                           int medium, int capability) {
  fastcodec::LstmPlan plan{};
  if (!fastcodec::plan_lstm(batch, hidden, capability, &plan)) return 0;
  std::vector<float4> gates(batch * frames * hidden);
  std::vector<float> exchange(2 * batch * hidden);
  fastcodec::LstmLayer p{};
  p.x = x, p.x_batch = strides[0], p.x_channel = strides[1], p.x_frame = strides[2];
  p.weight_ih = weight_ih, p.weight_hh = weight_hh, p.bias_ih = bias_ih, p.bias_hh = bias_hh;
  p.h_in = h_in, p.c_in = c_in, p.h_out = h_out, p.c_out = c_out, p.out = out;
  p.gates = &gates.data()->x, p.exchange = exchange.data();
  p.skip = skip != 0 ? x : nullptr;
  p.skip_batch = p.x_batch, p.skip_channel = p.x_channel, p.skip_frame = p.x_frame;
  p.batch = batch, p.frames = frames, p.hidden = hidden, p.medium = medium != 0;
  return fastcodec::lstm_layer(p, plan, nullptr) == cudaSuccess;
}
