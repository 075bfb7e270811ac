// Pointwise activations: as ops of their own (activation, snake) and as the prologue of a
// convolution, which writes its input time-major whatever layout it came in.
#include <algorithm>

#include "isa.h"
#include "vec.h"

namespace FASTCODEC_ISA_NS {
namespace {

using fastcodec::Activation;
using fastcodec::Prologue;

template <Activation kKind>
FC_INLINE V activate(V x, V alpha, V inverse_beta, V slope) {
  if constexpr (kKind == Activation::kElu) return elu(x);
  if constexpr (kKind == Activation::kLeakyRelu) return leaky_relu(x, slope);
  if constexpr (kKind == Activation::kSnake) return fma(sin_squared(alpha * x), inverse_beta, x);
  if constexpr (kKind == Activation::kGelu) return gelu(x);
  if constexpr (kKind == Activation::kSilu) return silu(x);
  if constexpr (kKind == Activation::kTanh) return tanh(x);
  if constexpr (kKind == Activation::kSigmoid) return sigmoid(x);
  return x;
}

// `count` contiguous values; the parameters advance with them (per_value) or are those of one
// channel.
template <Activation kKind>
void run(const Prologue& p, const float* x, int64_t count, int64_t channel, bool per_value,
         float* out) {
  constexpr bool kHas = kKind == Activation::kSnake;
  const V slope = set(p.slope);
  V alpha = kHas ? set(p.alpha[channel]) : zero();
  V inverse_beta = kHas ? set(p.inverse_beta[channel]) : zero();
  for (int64_t i = 0; i < count; i += kLanes) {
    const int n = static_cast<int>(std::min<int64_t>(kLanes, count - i));
    if (kHas && per_value) {
      alpha = load_part(p.alpha + channel + i, n);
      inverse_beta = load_part(p.inverse_beta + channel + i, n);
    }
    if (n == kLanes) {
      store(out + i, activate<kKind>(load(x + i), alpha, inverse_beta, slope));
    } else {
      store_part(out + i, activate<kKind>(load_part(x + i, n), alpha, inverse_beta, slope), n);
    }
  }
}

// Channel-major input: a strip of one channel through the activation, then spread over the frames.
template <Activation kKind>
void transpose(const Prologue& p, const float* x, int64_t channel_stride, int64_t frames,
               int64_t channels, float* out) {
  constexpr int64_t kStrip = 64;
  float strip[kStrip];
  for (int64_t t = 0; t < frames; t += kStrip) {
    const int64_t n = std::min(kStrip, frames - t);
    for (int64_t c = 0; c < channels; ++c) {
      run<kKind>(p, x + c * channel_stride + t, n, c, false, strip);
      for (int64_t i = 0; i < n; ++i) out[(t + i) * channels + c] = strip[i];
    }
  }
}

template <Activation kKind>
void prologue_of(const Prologue& p, const float* x, int64_t channel_stride, int64_t frame_stride,
                 int64_t frames, int64_t channels, float* out) {
  if (channels == 1 && frame_stride == 1) return run<kKind>(p, x, frames, 0, false, out);
  if (kKind != Activation::kSnake && channel_stride == 1 && frame_stride == channels) {
    return run<kKind>(p, x, frames * channels, 0, false, out);
  }
  if (channel_stride != 1) return transpose<kKind>(p, x, channel_stride, frames, channels, out);
  for (int64_t t = 0; t < frames; ++t) {
    run<kKind>(p, x + t * frame_stride, channels, 0, true, out + t * channels);
  }
}

}  // namespace

void prologue(const Prologue& p, const float* x, int64_t channel_stride, int64_t frame_stride,
              int64_t frames, int64_t channels, float* out) {
  constexpr decltype(&prologue_of<Activation::kNone>) kByKind[] = {
      prologue_of<Activation::kNone>,      prologue_of<Activation::kElu>,
      prologue_of<Activation::kLeakyRelu>, prologue_of<Activation::kSnake>,
      prologue_of<Activation::kGelu>,      prologue_of<Activation::kSilu>,
      prologue_of<Activation::kTanh>,      prologue_of<Activation::kSigmoid>};
  kByKind[static_cast<int64_t>(p.kind)](p, x, channel_stride, frame_stride, frames, channels, out);
}

}  // namespace FASTCODEC_ISA_NS
