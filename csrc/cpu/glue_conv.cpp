// conv1d and conv_transpose1d: their torch side.
#include "glue.h"

namespace fastcodec {

// Whether windows begin a multiple of 4 kB apart: the rows of a register tile then fight for the
// same eight lines of an L1 cache.
static bool aliased(const Conv& p, int64_t x_frame) {
  const bool many = p.frames >= 8 && table().conv_panels(p) > 1;
  return many && p.stride * x_frame * sizeof(float) % 4096 == 0;
}

// p with the input of its frames [begin, end) in memory of this thread: through the activation, and
// rounded where p wants it, a few frames at a time, so that rounding finds them in the L1 cache.
static Conv staged(Conv p, const Signal& s, const Prologue& prologue, int64_t batch, int64_t begin,
                   int64_t end) {
  const int64_t first = begin * p.stride;
  const int64_t count = (end - 1) * p.stride + (p.taps - 1) * p.dilation + 1 - first;
  const int64_t x_frame = p.medium ? table().conv_round(p, 0, nullptr) : p.channels;
  const bool apart = s.time_major() && aliased(p, x_frame);
  const int64_t step = apart      ? 1
                       : p.medium ? std::max<int64_t>(kRoundedFloats / p.channels, kStagedFrames)
                                  : count;
  p.x_batch = 0, p.x_frame = apart ? x_frame + kApart : x_frame;
  float* out = scratch(count * std::max(p.x_frame, p.channels)).data();
  for (int64_t t = 0; t < count; t += step) {
    const int64_t frames = std::min(step, count - t);
    stage(prologue, s, batch, first + t, frames, out + t * p.x_frame);
    if (p.medium) table().conv_round(p, frames, out + t * p.x_frame);
  }
  p.x = out - first * p.x_frame;
  return p;
}

// Runs p over all of s. Threads take equally many register tiles of frames, a piece that fits an L2
// cache at a time; or, where there are few frames to read the weights for, panels of columns.
void run_conv(Conv p, const Signal& s, const Prologue& prologue) {
  const Kernels& k = table();
  const int64_t weights = p.blocks * p.width * p.taps * p.channels / p.groups;
  const int64_t flops = 2 * weights * std::max(s.batch * p.frames, kWeightUses);
  const int64_t most = std::clamp<int64_t>(kTileFloats / (p.stride * p.channels), 48, 2048) / kRows;
  const int64_t tiles = (p.frames + kRows - 1) / kRows, panels = k.conv_panels(p);
  p.x = s.x, p.x_batch = s.batch_stride, p.x_frame = s.frame_stride;
  const bool in_place = prologue.kind == Activation::kNone && s.time_major() && !p.medium &&
                        !aliased(p, s.frame_stride);
  // f(conv, batch, begin, end) for register tiles [first, last) of all
  const auto each_piece = [&](int64_t first, int64_t last, const auto& f) {
    for (int64_t i = first, count; i < last; i += count) {
      const int64_t batch = i / tiles, at = i % tiles;
      count = std::min({most, last - i, tiles - at});
      const int64_t begin = at * kRows, end = std::min(begin + count * kRows, p.frames);
      f(in_place ? p : staged(p, s, prologue, batch, begin, end), batch, begin, end);
    }
  };
  const int64_t threads = thread_count();
  if (s.batch >= threads || s.batch * p.frames >= kEnoughFrames * threads || panels == 1) {
    parallel(s.batch * tiles, flops, [&](int64_t first, int64_t last) {
      each_piece(first, last, [&](const Conv& q, int64_t batch, int64_t begin, int64_t end) {
        k.conv(q, batch, begin, end, 0, panels);
      });
    });
    return;
  }
  each_piece(0, s.batch * tiles, [&](const Conv& q, int64_t batch, int64_t begin, int64_t end) {
    parallel(panels, flops * (end - begin) / (s.batch * p.frames),
             [&](int64_t first, int64_t last) { k.conv(q, batch, begin, end, first, last); });
  });
}

static const float* packed_or(const MaybeTensor& packed, const Conv& p, const float* weight,
                              std::vector<float>& own) {
  const int64_t size = table().conv_packed_size(p);
  if (packed.has_value()) {
    check_vector(packed, size, "packed");
    return data(packed);
  }
  own.resize(size);
  table().conv_pack(p, weight, own.data());
  return own.data();
}

static Conv conv1d_shape(const Tensor& weight, int64_t stride, int64_t dilation, int64_t groups) {
  check_float(weight, "weight");
  STD_TORCH_CHECK(weight.dim() == 3 && weight.is_contiguous() && stride > 0 && dilation > 0 &&
                      groups > 0 && weight.size(0) % groups == 0,
                  "fastcodec: conv1d: weight must be a contiguous [C_out, C_in / groups, k]");
  Conv p = {};
  p.channels = weight.size(1) * groups, p.taps = weight.size(2);
  p.stride = stride, p.dilation = dilation, p.groups = groups;
  p.blocks = groups, p.width = weight.size(0) / groups, p.bias_size = weight.size(0);
  return p;
}

Tensor conv1d_pack(Tensor weight, int64_t groups, int64_t precision) {
  Conv p = conv1d_shape(weight, 1, 1, groups);
  p.medium = is_medium(precision, weight.size(1), p.width);
  Tensor packed = empty_vector(table().conv_packed_size(p));
  table().conv_pack(p, data(weight), data(packed));
  return packed;
}

Tensor conv1d(Tensor x, Tensor weight, MaybeTensor bias, MaybeTensor residual, MaybeTensor alpha,
              MaybeTensor beta, MaybeTensor packed, int64_t stride, int64_t dilation,
              int64_t groups, int64_t activation, double slope, int64_t precision) {
  Conv p = conv1d_shape(weight, stride, dilation, groups);
  p.medium = is_medium(precision, weight.size(1), p.width);
  const Signal s(x, "conv1d: x");
  const int64_t span = (p.taps - 1) * dilation + 1, channels_out = weight.size(0);
  STD_TORCH_CHECK(s.channels == p.channels && s.frames >= span, "fastcodec: conv1d: x must be [B, ",
                  p.channels, ", T >= ", span, "]");
  check_vector(bias, channels_out, "conv1d: bias");
  p.frames = (s.frames - span) / stride + 1;
  p.bias = data(bias);
  std::vector<float> own, residual_copy;
  p.weight = packed_or(packed, p, data(weight), own);
  if (residual.has_value()) {
    const Signal r(*residual, "conv1d: residual");
    STD_TORCH_CHECK(r.batch == s.batch && r.channels == channels_out && r.frames == p.frames,
                    "fastcodec: conv1d: residual must have the shape of the output");
    p.residual = dense(r, residual_copy);
  }
  Tensor out = empty_time_major(s.batch, channels_out, p.frames);
  p.out = data(out);
  run_conv(p, s, Parameters(activation, slope, alpha, beta, s.channels).prologue);
  return out;
}

// A transposed convolution, each output of which sees all its inputs, is a convolution with
// stride * C_out columns over windows of ceil(k / stride) frames: column p * C_out + n of frame t
// is output channel n at sample t * stride + p. Where k is no multiple of stride some taps are
// zero.
static Conv transposed_shape(const Tensor& weight, int64_t stride, int64_t groups) {
  check_float(weight, "weight");
  STD_TORCH_CHECK(
      weight.dim() == 3 && weight.is_contiguous() && stride > 0 && groups > 0 &&
          weight.size(0) % groups == 0,
      "fastcodec: conv_transpose1d: weight must be a contiguous [C_in, C_out / groups, k]");
  Conv p = {};
  p.channels = weight.size(0), p.taps = (weight.size(2) + stride - 1) / stride;
  p.stride = 1, p.dilation = 1, p.groups = groups;
  p.blocks = groups == 1 ? 1 : stride * groups;
  p.width = groups == 1 ? stride * weight.size(1) : weight.size(1);
  p.bias_size = weight.size(1) * groups;
  return p;
}

static std::vector<float> as_convolution(const Tensor& weight, const Conv& p, int64_t stride) {
  const int64_t width = weight.size(1), k = weight.size(2), channels = p.channels / p.groups;
  const float* w = data(weight);
  std::vector<float> out(stride * p.groups * width * channels * p.taps, 0.0f);
  float* to = out.data();
  for (int64_t phase = 0; phase < stride; ++phase) {
    for (int64_t g = 0; g < p.groups; ++g) {
      for (int64_t n = 0; n < width; ++n) {
        for (int64_t c = 0; c < channels; ++c) {
          for (int64_t tap = 0; tap < p.taps; ++tap, ++to) {
            const int64_t from = phase + (p.taps - 1 - tap) * stride;
            if (from < k) *to = w[((g * channels + c) * width + n) * k + from];
          }
        }
      }
    }
  }
  return out;
}

Tensor conv_transpose1d_pack(Tensor weight, int64_t stride, int64_t groups, int64_t precision) {
  Conv p = transposed_shape(weight, stride, groups);
  p.medium = is_medium(precision, p.channels / groups, weight.size(1));
  Tensor packed = empty_vector(table().conv_packed_size(p));
  table().conv_pack(p, as_convolution(weight, p, stride).data(), data(packed));
  return packed;
}

Tensor conv_transpose1d(Tensor x, Tensor weight, MaybeTensor bias, MaybeTensor alpha,
                        MaybeTensor beta, MaybeTensor packed, int64_t stride, int64_t groups,
                        int64_t activation, double slope, int64_t precision) {
  Conv p = transposed_shape(weight, stride, groups);
  p.medium = is_medium(precision, p.channels / groups, weight.size(1));
  const Signal s(x, "conv_transpose1d: x");
  STD_TORCH_CHECK(s.channels == p.channels && s.frames >= p.taps,
                  "fastcodec: conv_transpose1d: x must be [B, ", p.channels, ", T >= ", p.taps,
                  "]");
  check_vector(bias, p.bias_size, "conv_transpose1d: bias");
  p.frames = s.frames - p.taps + 1;
  p.bias = data(bias);
  std::vector<float> own;
  p.weight = packed.has_value()
                 ? packed_or(packed, p, nullptr, own)
                 : packed_or(packed, p, as_convolution(weight, p, stride).data(), own);
  Tensor out = empty_time_major(s.batch, p.bias_size, p.frames * stride);
  p.out = data(out);
  run_conv(p, s, Parameters(activation, slope, alpha, beta, s.channels).prologue);
  return out;
}

}  // namespace fastcodec
