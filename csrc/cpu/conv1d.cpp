// conv1d and conv_transpose1d: implicit GEMM over time-major memory, no im2col.
//
// The window of an output frame is `taps` runs of channels (one run where dilation is 1), so a row
// of A is read in place. Weights are packed in panels of one or two vectors of columns:
// [panel][tap][channel][columns]. Three forms: dense; dot, for the one or two columns of a last
// layer, where the lanes run over the window instead; depthwise, where they run over the channels.
// A sum starts from the bias, as XNNPACK's do, so that nets made for LiteRT give its very bits.
//
// A medium convolution, always dense and of an even number of channels a group, rounds its operands
// to bfloat16. Where the processor multiplies pairs of those, two neighbouring channels share a
// float's place, and all else is as with half as many channels.
#include <algorithm>

#include "isa.h"
#include "tile.h"

namespace FASTCODEC_ISA_NS {
namespace {

using fastcodec::Conv;

enum class Form { kDense, kDot, kDepthwise };

int64_t group_channels(const Conv& p) { return p.channels / p.groups; }
int64_t columns(const Conv& p) { return p.blocks * p.width; }
int64_t panel_columns(const Conv& p) { return p.width <= kLanes ? kLanes : 2 * kLanes; }
int64_t panels_a_block(const Conv& p) {
  return (p.width + panel_columns(p) - 1) / panel_columns(p);
}

Form form(const Conv& p) {
  if (group_channels(p) == 1 && p.width == 1 && p.blocks == p.groups && p.groups > 1) {
    return Form::kDepthwise;
  }
  if (p.blocks == 1 && p.width <= 2 && p.channels % kSums == 0) return Form::kDot;
  return Form::kDense;
}

bool paired(const Conv& p) { return kPairs && p.medium; }
// What one tap of a group takes, in floats.
int64_t tap_floats(const Conv& p) { return paired(p) ? group_channels(p) / 2 : group_channels(p); }
int64_t depth(const Conv& p) { return p.taps * tap_floats(p); }

// The window as `segments` runs of `length`, one where the runs touch each other.
struct Window {
  int64_t segments, length, stride;
};
Window window(const Conv& p) {
  const int64_t tap = tap_floats(p);
  if (p.dilation == 1 && p.groups == 1 && p.x_frame == tap) return {1, p.taps * tap, 0};
  return {p.taps, tap, p.dilation * p.x_frame};
}

template <typename Product, int NV>
void dense_panel(const Conv& p, int64_t batch, int64_t begin, int64_t end, int64_t panel) {
  const int64_t block = panel / panels_a_block(p), within = panel % panels_a_block(p);
  const int64_t first = within * NV * kLanes;
  const int64_t count = std::min<int64_t>(NV * kLanes, p.width - first);
  const int64_t column = block * p.width + first, row = columns(p);
  const float* b = p.weight + panel * depth(p) * NV * kLanes;
  const Window w = window(p);
  alignas(64) float bias_row[NV * kLanes] = {};
  if (p.bias != nullptr) {
    for (int64_t n = 0; n < count; ++n) bias_row[n] = p.bias[(column + n) % p.bias_size];
  }
  const float* x = p.x + batch * p.x_batch + (block % p.groups) * tap_floats(p);
  for (int64_t t = begin; t < end; t += kRows) {
    with_rows(end - t, [&](auto rows) {
      constexpr int M = decltype(rows)::value;
      V sums[M][NV];
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) sums[m][v] = load(bias_row + v * kLanes);
      }
      accumulate<M, NV, Product>(sums, x + t * p.stride * p.x_frame, p.stride * p.x_frame,
                                 w.segments, w.length, w.stride, b);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const int64_t at = (batch * p.frames + t + m) * row + column;
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) {
          const int64_t n = std::min<int64_t>(kLanes, count - v * kLanes);
          if (n <= 0) continue;
          V y = sums[m][v];
          const int64_t to = at + v * kLanes;
          if (n == kLanes) {
            if (p.residual != nullptr) y = y + load(p.residual + to);
            store(p.out + to, y);
          } else {
            if (p.residual != nullptr) y = y + load_part(p.residual + to, n);
            store_part(p.out + to, y, n);
          }
        }
      }
    });
  }
}

void dot_frames(const Conv& p, int64_t batch, int64_t begin, int64_t end) {
  constexpr int kVectors = kSums / kLanes;
  constexpr int kFrames = 4;  // independent sums, to hide the latency of fma
  const Window w = window(p);
  const int64_t step = p.stride * p.x_frame;
  for (int64_t t = begin; t < end; t += kFrames) {
    const int64_t frames = std::min<int64_t>(kFrames, end - t);
    const float* x = p.x + batch * p.x_batch + t * step;
    for (int64_t n = 0; n < p.width; ++n) {
      V sums[kFrames][kVectors] = {};
      const float* weight = p.weight + n * depth(p);
      for (int64_t s = 0; s < w.segments; ++s) {
        for (int64_t i = 0; i < w.length; i += kSums, weight += kSums) {
          for (int f = 0; f < kFrames; ++f) {
            const float* xf = x + (f < frames ? f : 0) * step + s * w.stride + i;
            for (int v = 0; v < kVectors; ++v) {
              sums[f][v] = fma(load(xf + v * kLanes), load(weight + v * kLanes), sums[f][v]);
            }
          }
        }
      }
      for (int64_t f = 0; f < frames; ++f) {
        const int64_t at = (batch * p.frames + t + f) * p.width + n;
        float y = tree_sum(sums[f]) + (p.bias != nullptr ? p.bias[n % p.bias_size] : 0.0f);
        if (p.residual != nullptr) y += p.residual[at];
        p.out[at] = y;
      }
    }
  }
}

void depthwise_frames(const Conv& p, int64_t batch, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float* x = p.x + batch * p.x_batch + t * p.stride * p.x_frame;
    const int64_t at = (batch * p.frames + t) * p.channels;
    for (int64_t c = 0; c < p.channels; c += kLanes) {
      const int n = static_cast<int>(std::min<int64_t>(kLanes, p.channels - c));
      V sum = p.bias != nullptr ? load_part(p.bias + c, n) : zero();
      for (int64_t k = 0; k < p.taps; ++k) {
        sum = fma(load_part(x + k * p.dilation * p.x_frame + c, n),
                  load_part(p.weight + k * p.channels + c, n), sum);
      }
      if (p.residual != nullptr) sum = sum + load_part(p.residual + at + c, n);
      store_part(p.out + at + c, sum, n);
    }
  }
}

}  // namespace

int64_t conv_packed_size(const Conv& p) {
  if (form(p) != Form::kDense) return columns(p) * depth(p);
  return p.blocks * panels_a_block(p) * depth(p) * panel_columns(p);
}

void conv_pack(const Conv& p, const float* weight, float* packed) {
  const int64_t channels = group_channels(p), floats = tap_floats(p);
  const bool pairs = paired(p);
  const auto at = [&](int64_t column, int64_t tap, int64_t channel) {
    const float w = weight[(column * channels + channel) * p.taps + tap];
    return p.medium ? as_float(to_bfloat16(as_bits(w))) : w;
  };
  const auto pair_at = [&](int64_t column, int64_t tap, int64_t pair) {
    const uint32_t low = as_bits(at(column, tap, 2 * pair)) >> 16;
    return as_float(as_bits(at(column, tap, 2 * pair + 1)) | low);
  };
  if (form(p) == Form::kDepthwise) {
    for (int64_t k = 0; k < p.taps; ++k) {
      for (int64_t c = 0; c < p.channels; ++c) *packed++ = at(c, k, 0);
    }
    return;
  }
  const int64_t step = form(p) == Form::kDot ? 1 : panel_columns(p);
  for (int64_t block = 0; block < p.blocks; ++block) {
    for (int64_t first = 0; first < p.width; first += step) {
      for (int64_t k = 0; k < p.taps; ++k) {
        for (int64_t c = 0; c < floats; ++c) {
          for (int64_t n = first; n < first + step; ++n) {
            const int64_t column = block * p.width + n;
            *packed++ = n >= p.width ? 0.0f : pairs ? pair_at(column, k, c) : at(column, k, c);
          }
        }
      }
    }
  }
}

int64_t conv_panels(const Conv& p) {
  return form(p) == Form::kDense ? p.blocks * panels_a_block(p) : 1;
}

int64_t conv_round(const Conv& p, int64_t frames, float* x) {
  const int64_t count = frames * p.channels;
  if (!paired(p)) {
    for (int64_t i = 0; i < count; ++i) x[i] = as_float(to_bfloat16(as_bits(x[i])));
    return p.channels;
  }
#if defined(__AVX512BF16__)
  for (int64_t i = 0; i < count; i += 2 * kLanes) {  // writes behind what it has read
    const int n = std::min<int64_t>(kLanes, count - i);
    const int more = std::min<int64_t>(kLanes, count - i - n);
    const V first = load_part(x + i, n), second = load_part(x + i + n, more);
    const V pairs = _mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(second, first));
    store_part(x + i / 2, pairs, (n + more) / 2);
  }
#endif
  return p.channels / 2;
}

void conv(const Conv& p, int64_t batch, int64_t frame_begin, int64_t frame_end, int64_t panel_begin,
          int64_t panel_end) {
  if (form(p) == Form::kDot) return dot_frames(p, batch, frame_begin, frame_end);
  if (form(p) == Form::kDepthwise) return depthwise_frames(p, batch, frame_begin, frame_end);
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    const bool narrow = panel_columns(p) == kLanes;
    const auto run = paired(p) ? (narrow ? dense_panel<Pairs, 1> : dense_panel<Pairs, 2>)
                               : (narrow ? dense_panel<Floats, 1> : dense_panel<Floats, 2>);
    run(p, batch, frame_begin, frame_end, panel);
  }
}

}  // namespace FASTCODEC_ISA_NS
