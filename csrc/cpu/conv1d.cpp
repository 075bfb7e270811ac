// conv1d and conv_transpose1d: implicit GEMM over time-major memory, no im2col.
//
// The window of an output frame is `taps` runs of channels (one run where dilation is 1), so a row
// of A is read in place. Weights are packed in panels of one or two vectors of columns:
// [panel][tap][channel][columns]. Three forms: dense; dot, for the one or two columns of a last
// layer, where the lanes run over the window instead; depthwise, where they run over the channels.
// A sum starts from the bias, as XNNPACK's do, so that nets made for LiteRT give its very bits.
#include <algorithm>

#include "isa.h"
#include "tile.h"

namespace FASTCODEC_ISA_NS {
namespace {

using fastcodec::Conv;

enum class Form { kDense, kDot, kDepthwise };

int64_t group_channels(const Conv& p) { return p.channels / p.groups; }
int64_t columns(const Conv& p) { return p.blocks * p.width; }
int64_t depth(const Conv& p) { return p.taps * group_channels(p); }
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

// The window as `segments` runs of `length`, one where the runs touch each other.
struct Window {
  int64_t segments, length, stride;
};
Window window(const Conv& p) {
  if (p.dilation == 1 && p.groups == 1 && p.x_frame == p.channels) return {1, depth(p), 0};
  return {p.taps, group_channels(p), p.dilation * p.x_frame};
}

template <int NV>
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
  const float* x = p.x + batch * p.x_batch + (block % p.groups) * group_channels(p);
  for (int64_t t = begin; t < end; t += kRows) {
    with_rows(end - t, [&](auto rows) {
      constexpr int M = decltype(rows)::value;
      V sums[M][NV];
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) sums[m][v] = load(bias_row + v * kLanes);
      }
      accumulate(sums, x + t * p.stride * p.x_frame, p.stride * p.x_frame, w.segments, w.length,
                 w.stride, b);
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
  const int64_t channels = group_channels(p);
  const auto at = [&](int64_t column, int64_t tap, int64_t channel) {
    return weight[(column * channels + channel) * p.taps + tap];
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
        for (int64_t c = 0; c < channels; ++c) {
          for (int64_t n = first; n < first + step; ++n) {
            *packed++ = n < p.width ? at(block * p.width + n, k, c) : 0.0f;
          }
        }
      }
    }
  }
}

int64_t conv_panels(const Conv& p) {
  return form(p) == Form::kDense ? p.blocks * panels_a_block(p) : 1;
}

void conv(const Conv& p, int64_t batch, int64_t frame_begin, int64_t frame_end, int64_t panel_begin,
          int64_t panel_end) {
  if (form(p) == Form::kDot) return dot_frames(p, batch, frame_begin, frame_end);
  if (form(p) == Form::kDepthwise) return depthwise_frames(p, batch, frame_begin, frame_end);
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    if (panel_columns(p) == kLanes) {
      dense_panel<1>(p, batch, frame_begin, frame_end, panel);
    } else {
      dense_panel<2>(p, batch, frame_begin, frame_end, panel);
    }
  }
}

}  // namespace FASTCODEC_ISA_NS
