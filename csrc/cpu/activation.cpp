// Pointwise activations: as ops of their own (activation, snake) and as the prologue of a
// convolution, which writes its input time-major whatever layout it came in.
#include <algorithm>

#include "isa.h"
#include "vec.h"

namespace FASTCODEC_ISA_NS {
namespace {

using fastcodec::Activation;
using fastcodec::Prologue;
using fastcodec::SnakeBackward;

struct Channel {  // snake's parameters
  V turns, turns_low, inverse_beta;
};

template <Activation kKind>
FC_INLINE V activate(V x, const Channel& p, V slope) {
  if constexpr (kKind == Activation::kElu) return elu(x);
  if constexpr (kKind == Activation::kLeakyRelu) return leaky_relu(x, slope);
  if constexpr (kKind == Activation::kSnake) {
    return snake(x, p.turns, p.turns_low, p.inverse_beta);
  }
  if constexpr (kKind == Activation::kGelu) return gelu(x);
  if constexpr (kKind == Activation::kSilu) return silu(x);
  if constexpr (kKind == Activation::kTanh) return tanh(x);
  if constexpr (kKind == Activation::kSigmoid) return sigmoid(x);
  return x;
}

// `count` contiguous values of one channel, or with a period, of channels that follow each other
// and begin again after it.
template <Activation kKind, bool kPeriodic, bool kStream>
void run_in(const Prologue& p, const float* x, int64_t count, int64_t channel, int64_t period,
            float* out) {
  constexpr bool kHas = kKind == Activation::kSnake;
  const V slope = set(p.slope);
  Channel one = {};
  if constexpr (kHas && !kPeriodic) {
    one = {set(p.turns[channel]), set(p.turns_low[channel]), set(p.inverse_beta[channel])};
  }
  const auto step = [&](int64_t i, int n) FC_LAMBDA_INLINE {
    if constexpr (kHas && kPeriodic) {
      one = {load(p.turns + channel), load(p.turns_low + channel), load(p.inverse_beta + channel)};
      for (channel += n; channel >= period;) channel -= period;
    }
    if (n < kLanes) {
      store_part(out + i, activate<kKind>(load_part(x + i, n), one, slope), n);
    } else if constexpr (kStream) {
      stream(out + i, activate<kKind>(load(x + i), one, slope));
    } else {
      store(out + i, activate<kKind>(load(x + i), one, slope));
    }
  };
  int64_t i = 0;
  if constexpr (kStream) {  // only to whole vectors of memory
    const int64_t past = reinterpret_cast<uintptr_t>(out) / sizeof(float) % kLanes;
    i = std::min((kLanes - past) % kLanes, count);
    if (i > 0) step(0, static_cast<int>(i));
  }
  for (; i + kLanes <= count; i += kLanes) step(i, kLanes);
  if (i < count) step(i, static_cast<int>(count - i));
}

template <Activation kKind>
void run(const Prologue& p, const float* x, int64_t count, int64_t channel, float* out) {
  (p.stream ? run_in<kKind, false, true> : run_in<kKind, false, false>)(p, x, count, channel, 0,
                                                                        out);
}

template <Activation kKind>
void run_channels(const Prologue& p, const float* x, int64_t count, int64_t channels, float* out) {
  if (kKind != Activation::kSnake) return run<kKind>(p, x, count, 0, out);
  (p.stream ? run_in<kKind, true, true> : run_in<kKind, true, false>)(p, x, count, 0, channels,
                                                                      out);
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
      run_in<kKind, false, false>(p, x + c * channel_stride + t, n, c, 0, strip);
      for (int64_t i = 0; i < n; ++i) out[(t + i) * channels + c] = strip[i];
    }
  }
}

template <Activation kKind>
void prologue_of(const Prologue& p, const float* x, int64_t channel_stride, int64_t frame_stride,
                 int64_t frames, int64_t channels, float* out) {
  if (channels == 1 && frame_stride == 1) return run<kKind>(p, x, frames, 0, out);
  if (channel_stride != 1) return transpose<kKind>(p, x, channel_stride, frames, channels, out);
  if (frame_stride == channels) {
    return run_channels<kKind>(p, x, frames * channels, channels, out);
  }
  for (int64_t t = 0; t < frames; ++t) {
    run_channels<kKind>(p, x + t * frame_stride, channels, channels, out + t * channels);
  }
}

// The gradient of x; adds to the two sums. half_turns gives -f, and the sine is odd.
FC_INLINE V snake_gradient(V grad, V x, V turns, V turns_low, V gain, V* alpha, V* beta) {
  const V f = half_turns(x, turns, turns_low), s = f * f;
  const V slope = grad * (f * sin_double_over(s));
  *alpha = fnma(slope, x, *alpha);
  *beta = fma(grad, s * sin_squared_over(s), *beta);
  return fnma(slope, gain, grad);
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

void snake_backward_rows(const SnakeBackward& p, int64_t frames, int64_t channels, double* sums) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    const int n = static_cast<int>(std::min<int64_t>(kLanes, channels - c));
    const V turns = load_part(p.turns + c, n), turns_low = load_part(p.turns_low + c, n);
    const V gain = load_part(p.gain + c, n);
    V alpha = zero(), beta = zero();
    for (int64_t i = c; i < frames * channels; i += channels) {
      const V dx = snake_gradient(load_part(p.grad + i, n), load_part(p.x + i, n), turns, turns_low,
                                  gain, &alpha, &beta);
      store_part(p.dx + i, dx, n);
    }
    alignas(64) float a[kLanes], b[kLanes];
    store(a, alpha), store(b, beta);
    for (int i = 0; i < n; ++i) sums[c + i] = a[i], sums[channels + c + i] = b[i];
  }
}

void snake_backward_run(const SnakeBackward& p, int64_t frames, double* sums) {
  constexpr int64_t kRun = 1024;  // values that are summed in float
  const V turns = set(*p.turns), turns_low = set(*p.turns_low), gain = set(*p.gain);
  sums[0] = sums[1] = 0;
  for (int64_t begin = 0; begin < frames; begin += kRun) {
    const int64_t end = std::min(begin + kRun, frames);
    V alpha[kSums / kLanes] = {}, beta[kSums / kLanes] = {};
    for (int64_t t = begin; t < end; t += kSums) {
      for (int v = 0; v < kSums / kLanes; ++v) {
        const int64_t i = t + v * kLanes;
        const int n = static_cast<int>(std::clamp<int64_t>(end - i, 0, kLanes));
        if (n == 0) continue;
        // What is not there is a gradient of zero.
        const V dx = snake_gradient(load_part(p.grad + i, n), load_part(p.x + i, n), turns,
                                    turns_low, gain, &alpha[v], &beta[v]);
        store_part(p.dx + i, dx, n);
      }
    }
    sums[0] += tree_sum(alpha), sums[1] += tree_sum(beta);
  }
}

}  // namespace FASTCODEC_ISA_NS
