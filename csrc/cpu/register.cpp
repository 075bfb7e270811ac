// The torch side of the CPU library: unpacks tensors, allocates results, cuts the work into
// independent items for torch's threads. Schemas are declared in Python (fastcodec/ops); those the
// code below was written for are exported, and compared when the library is loaded.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "isa.h"
#include "relay.h"

using fastcodec::Activation;
using fastcodec::Conv;
using fastcodec::Kernels;
using fastcodec::Prologue;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

namespace {

// About 100 us. Waking a thread takes 5 us on a quiet machine, but a time slice where another
// process wants the core: many short regions then run 100 times slower than one thread alone.
constexpr int64_t kSerialFlops = 1 << 23;
constexpr int64_t kWeightUses = 8;          // reading a weight takes as long as this many products
constexpr int64_t kTileFloats = 48 * 1024;  // input of a tile: a fifth of a 1 MB L2

const Kernels& table() {
  const Kernels* t = fastcodec::kernels();
  STD_TORCH_CHECK(t != nullptr, "fastcodec: the CPU kernels do not run here");
  return *t;
}

float* data(const Tensor& t) { return static_cast<float*>(t.data_ptr()); }
const float* data(const MaybeTensor& t) { return t.has_value() ? data(*t) : nullptr; }

void check_float(const Tensor& t, const char* what) {
  STD_TORCH_CHECK(t.is_cpu() && t.scalar_type() == torch::headeronly::ScalarType::Float,
                  "fastcodec: ", what, " must be a float32 tensor on the CPU");
}

void check_vector(const MaybeTensor& t, int64_t size, const char* what) {
  if (!t.has_value()) return;
  check_float(*t, what);
  STD_TORCH_CHECK(t->dim() == 1 && t->size(0) == size && t->is_contiguous(), "fastcodec: ", what,
                  " must be a contiguous vector of ", size);
}

Tensor empty(std::initializer_list<int64_t> sizes, std::initializer_list<int64_t> strides) {
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      sizes.size(), sizes.begin(), strides.begin(), aoti_torch_dtype_float32(),
      aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

Tensor empty_time_major(int64_t batch, int64_t channels, int64_t frames) {
  return empty({batch, channels, frames}, {frames * channels, 1, channels});
}

Tensor empty_vector(int64_t size) { return empty({size}, {1}); }

// f(begin, end) over [0, items), on torch's threads where the work is worth it.
template <typename F>
void parallel(int64_t items, int64_t flops, const F& f) {
  if (items <= 1 || flops < kSerialFlops) {
    f(0, items);
  } else {
    torch::stable::parallel_for(0, items, 1, f);
  }
}

// A [B, C, T] tensor's memory. Time-major: channels adjacent (also said of a single channel).
struct Signal {
  const float* x;
  int64_t batch, channels, frames, batch_stride, channel_stride, frame_stride;
  Tensor owner;  // keeps the memory
  Signal(const Tensor& t, const char* what) : owner(t) {
    check_float(t, what);
    STD_TORCH_CHECK(t.dim() == 3, "fastcodec: ", what, " must be [B, C, T]");
    const bool one_channel = t.size(1) == 1;
    if (!one_channel && t.stride(1) != 1 && t.stride(2) != 1) owner = torch::stable::contiguous(t);
    x = data(owner);
    batch = t.size(0), channels = t.size(1), frames = t.size(2);
    batch_stride = owner.stride(0), frame_stride = owner.stride(2);
    channel_stride = one_channel ? 1 : owner.stride(1);
  }
  bool time_major() const { return channel_stride == 1; }
  bool packed() const {
    return time_major() && frame_stride == channels && batch_stride == frames * channels;
  }
};

std::vector<float>& scratch(int64_t size) {
  thread_local std::vector<float> buffer;
  if (static_cast<int64_t>(buffer.size()) < size) buffer.resize(size);
  return buffer;
}

// Frames [begin, begin + count) of one signal, through the activation, time-major.
void stage(const Prologue& prologue, const Signal& s, int64_t batch, int64_t begin, int64_t count,
           float* out) {
  const float* x = s.x + batch * s.batch_stride + begin * s.frame_stride;
  table().prologue(prologue, x, s.channel_stride, s.frame_stride, count, s.channels, out);
}

// The signal as a dense time-major array: itself, or a copy kept in `copy`.
const float* dense(const Signal& s, std::vector<float>& copy) {
  if (s.packed()) return s.x;
  copy.resize(s.batch * s.frames * s.channels);
  for (int64_t b = 0; b < s.batch; ++b) {
    stage({Activation::kNone}, s, b, 0, s.frames, copy.data() + b * s.frames * s.channels);
  }
  return copy.data();
}

struct SnakeParameters {
  std::vector<float> inverse_beta;
  Prologue prologue;
  SnakeParameters(int64_t kind, double slope, const MaybeTensor& alpha, const MaybeTensor& beta,
                  int64_t channels) {
    check_vector(alpha, channels, "alpha");
    check_vector(beta, channels, "beta");
    prologue = {static_cast<Activation>(kind), data(alpha), nullptr, static_cast<float>(slope)};
    if (prologue.kind != Activation::kSnake) return;
    STD_TORCH_CHECK(alpha.has_value(), "fastcodec: snake needs alpha");
    const float* b = beta.has_value() ? data(beta) : data(alpha);
    inverse_beta.resize(channels);
    for (int64_t c = 0; c < channels; ++c) inverse_beta[c] = 1.0f / (b[c] + 1e-9f);
    prologue.inverse_beta = inverse_beta.data();
  }
};

// Runs p over all of s: tiles of frames where there are enough of them, else panels of columns.
void run_conv(Conv p, const Signal& s, const Prologue& prologue) {
  const Kernels& k = table();
  const int64_t weights = p.blocks * p.width * p.taps * p.channels / p.groups;
  const int64_t flops = 2 * weights * std::max(s.batch * p.frames, kWeightUses);
  const int64_t span = (p.taps - 1) * p.dilation + 1;
  const int64_t tile =
      std::clamp<int64_t>(kTileFloats / (p.stride * p.channels), 48, 2048) / 12 * 12;
  const int64_t tiles = (p.frames + tile - 1) / tile, panels = k.conv_panels(p);
  const bool staged = prologue.kind != Activation::kNone || !s.time_major();
  const auto run = [&](int64_t batch, int64_t begin, int64_t end, int64_t panel_begin,
                       int64_t panel_end, const float* at_begin) {
    Conv q = p;
    if (staged) {
      q.x = at_begin - begin * p.stride * p.channels;
      q.x_batch = 0, q.x_frame = p.channels;
    }
    k.conv(q, batch, begin, end, panel_begin, panel_end);
  };
  const auto stage_tile = [&](int64_t batch, int64_t begin, int64_t end) -> const float* {
    if (!staged) return nullptr;
    const int64_t count = (end - begin - 1) * p.stride + span;
    float* out = scratch(count * p.channels).data();
    stage(prologue, s, batch, begin * p.stride, count, out);
    return out;
  };
  p.x = s.x, p.x_batch = s.batch_stride, p.x_frame = s.frame_stride;
  if (s.batch * tiles >= torch::stable::get_num_threads() || panels == 1) {
    parallel(s.batch * tiles, flops, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const int64_t begin = i % tiles * tile, end = std::min(begin + tile, p.frames);
        run(i / tiles, begin, end, 0, panels, stage_tile(i / tiles, begin, end));
      }
    });
    return;
  }
  for (int64_t i = 0; i < s.batch * tiles; ++i) {
    const int64_t begin = i % tiles * tile, end = std::min(begin + tile, p.frames);
    const float* x = stage_tile(i / tiles, begin, end);
    parallel(panels, flops / (s.batch * tiles),
             [&](int64_t first, int64_t last) { run(i / tiles, begin, end, first, last, x); });
  }
}

const float* packed_or(const MaybeTensor& packed, const Conv& p, const float* weight,
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

Conv conv1d_shape(const Tensor& weight, int64_t stride, int64_t dilation, int64_t groups) {
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

Tensor conv1d_pack(Tensor weight, int64_t groups) {
  const Conv p = conv1d_shape(weight, 1, 1, groups);
  Tensor packed = empty_vector(table().conv_packed_size(p));
  table().conv_pack(p, data(weight), data(packed));
  return packed;
}

Tensor conv1d(Tensor x, Tensor weight, MaybeTensor bias, MaybeTensor residual, MaybeTensor alpha,
              MaybeTensor beta, MaybeTensor packed, int64_t stride, int64_t dilation,
              int64_t groups, int64_t activation, double slope) {
  Conv p = conv1d_shape(weight, stride, dilation, groups);
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
  run_conv(p, s, SnakeParameters(activation, slope, alpha, beta, s.channels).prologue);
  return out;
}

// A transposed convolution, each output of which sees all its inputs, is a convolution with
// stride * C_out columns over windows of ceil(k / stride) frames: column p * C_out + n of frame t
// is output channel n at sample t * stride + p. Where k is no multiple of stride some taps are
// zero.
Conv transposed_shape(const Tensor& weight, int64_t stride, int64_t groups) {
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

std::vector<float> as_convolution(const Tensor& weight, const Conv& p, int64_t stride) {
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

Tensor conv_transpose1d_pack(Tensor weight, int64_t stride, int64_t groups) {
  const Conv p = transposed_shape(weight, stride, groups);
  Tensor packed = empty_vector(table().conv_packed_size(p));
  table().conv_pack(p, as_convolution(weight, p, stride).data(), data(packed));
  return packed;
}

Tensor conv_transpose1d(Tensor x, Tensor weight, MaybeTensor bias, MaybeTensor alpha,
                        MaybeTensor beta, MaybeTensor packed, int64_t stride, int64_t groups,
                        int64_t activation, double slope) {
  Conv p = transposed_shape(weight, stride, groups);
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
  run_conv(p, s, SnakeParameters(activation, slope, alpha, beta, s.channels).prologue);
  return out;
}

Tensor snake(Tensor x, Tensor alpha, MaybeTensor beta) {
  const Signal s(x, "snake: x");
  const SnakeParameters p(static_cast<int64_t>(Activation::kSnake), 0, alpha, beta, s.channels);
  const int64_t flops = 20 * s.batch * s.channels * s.frames;
  if (s.time_major()) {
    constexpr int64_t kTile = 256;
    Tensor out = empty_time_major(s.batch, s.channels, s.frames);
    const int64_t tiles = (s.frames + kTile - 1) / kTile;
    parallel(s.batch * tiles, flops, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const int64_t b = i / tiles, t = i % tiles * kTile;
        stage(p.prologue, s, b, t, std::min(kTile, s.frames - t),
              data(out) + (b * s.frames + t) * s.channels);
      }
    });
    return out;
  }
  Tensor out = empty({s.batch, s.channels, s.frames}, {s.channels * s.frames, s.frames, 1});
  parallel(s.batch * s.channels, flops, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t b = i / s.channels, c = i % s.channels;
      const Prologue one = {Activation::kSnake, p.prologue.alpha + c, p.prologue.inverse_beta + c,
                            0};
      table().prologue(one, s.x + b * s.batch_stride + c * s.channel_stride, 1, 1, s.frames, 1,
                       data(out) + i * s.frames);
    }
  });
  return out;
}

Conv lstm_input_shape(const Tensor& weight_ih) {
  STD_TORCH_CHECK(weight_ih.dim() == 3 && weight_ih.is_contiguous() &&
                      weight_ih.size(1) == 4 * weight_ih.size(2),
                  "fastcodec: lstm: weights must be contiguous [L, 4 H, H]");
  Conv p = {};
  p.channels = weight_ih.size(2), p.taps = p.stride = p.dilation = p.groups = p.blocks = 1;
  p.width = p.bias_size = weight_ih.size(1);
  return p;
}

Tensor lstm_pack(Tensor weight_ih, Tensor weight_hh) {
  const Kernels& k = table();
  const Conv p = lstm_input_shape(weight_ih);
  const int64_t layers = weight_ih.size(0), hidden = p.channels, one = 4 * hidden * hidden;
  const int64_t input_size = k.conv_packed_size(p), size = input_size + k.lstm_packed_size(hidden);
  Tensor packed = empty_vector(layers * size);
  for (int64_t l = 0; l < layers; ++l) {
    k.conv_pack(p, data(weight_ih) + l * one, data(packed) + l * size);
    k.lstm_pack(data(weight_hh) + l * one, hidden, data(packed) + l * size + input_size);
  }
  return packed;
}

std::tuple<Tensor, Tensor, Tensor> lstm(Tensor x, Tensor h, Tensor c, Tensor weight_ih,
                                        Tensor weight_hh, Tensor bias_ih, Tensor bias_hh,
                                        MaybeTensor packed, bool skip) {
  const Kernels& k = table();
  const Signal s(x, "lstm: x");
  Conv p = lstm_input_shape(weight_ih);
  const int64_t layers = weight_ih.size(0), hidden = p.channels, gates_size = 4 * hidden;
  for (const Tensor& t : {weight_ih, weight_hh, bias_ih, bias_hh, h, c}) check_float(t, "lstm");
  STD_TORCH_CHECK(s.channels == hidden && weight_hh.numel() == weight_ih.numel() &&
                      bias_ih.numel() == layers * gates_size &&
                      bias_hh.numel() == layers * gates_size &&
                      h.numel() == layers * s.batch * hidden && c.numel() == h.numel() &&
                      weight_hh.is_contiguous() && bias_ih.is_contiguous() &&
                      bias_hh.is_contiguous() && h.is_contiguous() && c.is_contiguous(),
                  "fastcodec: lstm: x [B, H, T], h and c [L, B, H], biases [L, 4 H], contiguous");
  const int64_t input_size = k.conv_packed_size(p), size = input_size + k.lstm_packed_size(hidden);
  const Tensor own = packed.has_value() ? *packed : lstm_pack(weight_ih, weight_hh);
  check_vector(own, layers * size, "lstm: packed");
  Tensor out = empty_time_major(s.batch, hidden, s.frames);
  Tensor h_out = empty({layers, s.batch, hidden}, {s.batch * hidden, hidden, 1});
  Tensor c_out = empty({layers, s.batch, hidden}, {s.batch * hidden, hidden, 1});
  const int64_t state = s.batch * hidden, blocks = k.lstm_blocks(hidden);
  std::copy(data(h), data(h) + layers * state, data(h_out));
  std::copy(data(c), data(c) + layers * state, data(c_out));
  std::vector<float> copy, gates(s.batch * s.frames * gates_size), bias(gates_size), h_next(state);
  const float* input = dense(s, copy);
  for (int64_t l = 0; l < layers; ++l) {
    for (int64_t i = 0; i < gates_size; ++i) {
      bias[i] = data(bias_ih)[l * gates_size + i] + data(bias_hh)[l * gates_size + i];
    }
    Signal from = s;
    from.x = l == 0 ? input : data(out);
    from.channel_stride = 1, from.frame_stride = hidden, from.batch_stride = s.frames * hidden;
    p.weight = data(own) + l * size, p.bias = bias.data(), p.out = gates.data(),
    p.frames = s.frames;
    run_conv(p, from, {Activation::kNone});
    const bool add = skip && l + 1 == layers;
    const fastcodec::Lstm layer = {gates.data(),
                                   data(own) + l * size + input_size,
                                   {data(h_out) + l * state, h_next.data()},
                                   data(c_out) + l * state,
                                   data(out),
                                   add ? input : nullptr,
                                   s.batch,
                                   s.frames,
                                   hidden};
    fastcodec::Relay relay(s.frames, blocks, torch::stable::get_num_threads());
    const int64_t flops = 2 * hidden * gates_size * std::max(s.batch, kWeightUses) * s.frames;
    parallel(relay.count(), flops, [&](int64_t first, int64_t last) {
      for (int64_t share = first; share < last; ++share) {
        relay.run(share, [&](int64_t t, int64_t block) { k.lstm_step(layer, t, block); });
      }
    });
    if (s.frames % 2 == 1) std::copy(h_next.begin(), h_next.end(), data(h_out) + l * state);
  }
  return {out, h_out, c_out};
}

void check_codebooks(const Tensor& codebooks) {
  check_float(codebooks, "codebooks");
  STD_TORCH_CHECK(codebooks.dim() == 3 && codebooks.is_contiguous(),
                  "fastcodec: codebooks must be a contiguous [K, N, D]");
}

Tensor rvq_pack(Tensor codebooks) {
  check_codebooks(codebooks);
  const int64_t words = codebooks.size(1), features = codebooks.size(2);
  const int64_t size = table().rvq_packed_size(words, features);
  Tensor packed = empty_vector(codebooks.size(0) * size);
  for (int64_t stage = 0; stage < codebooks.size(0); ++stage) {
    table().rvq_pack(data(codebooks) + stage * words * features, words, features,
                     data(packed) + stage * size);
  }
  return packed;
}

Tensor rvq_encode(Tensor x, Tensor codebooks, MaybeTensor packed) {
  check_codebooks(codebooks);
  const Signal s(x, "rvq_encode: x");
  const int64_t stages = codebooks.size(0), words = codebooks.size(1);
  STD_TORCH_CHECK(s.channels == codebooks.size(2), "fastcodec: rvq_encode: x must be [B, ",
                  codebooks.size(2), ", T]");
  const Tensor own = packed.has_value() ? *packed : rvq_pack(codebooks);
  // A longer one belongs to the same quantizer with more stages.
  STD_TORCH_CHECK(own.numel() >= stages * table().rvq_packed_size(words, s.channels),
                  "fastcodec: rvq_encode: packed is too short");
  AtenTensorHandle handle;
  const int64_t sizes[] = {s.batch, stages, s.frames};
  const int64_t strides[] = {stages * s.frames, s.frames, 1};
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      3, sizes, strides, aoti_torch_dtype_int64(), aoti_torch_device_type_cpu(), 0, &handle));
  Tensor codes(handle);
  std::vector<float> copy;
  const fastcodec::RvqEncode p = {dense(s, copy),  s.frames * s.channels,
                                  s.channels,      data(own),
                                  data(codebooks), static_cast<int64_t*>(codes.data_ptr()),
                                  s.frames,        s.channels,
                                  words,           stages};
  const int64_t rows = s.batch * s.frames;
  const auto run = [&](int64_t first, int64_t last) {
    auto& residual = scratch(table().rvq_scratch_size(last - first, s.channels));
    table().rvq_encode(p, first, last, residual.data());
  };
  parallel(rows, 2 * rows * stages * words * s.channels, run);
  return codes;
}

Tensor rvq_decode(Tensor codes, Tensor codebooks) {
  check_codebooks(codebooks);
  const int64_t words = codebooks.size(1), features = codebooks.size(2);
  STD_TORCH_CHECK(codes.is_cpu() && codes.dim() == 3 && codes.size(1) <= codebooks.size(0) &&
                      codes.scalar_type() == torch::headeronly::ScalarType::Long,
                  "fastcodec: rvq_decode: codes must be [B, K <= ", codebooks.size(0),
                  ", T] int64");
  const int64_t batch = codes.size(0), stages = codes.size(1), frames = codes.size(2);
  const int64_t* index = static_cast<const int64_t*>(codes.data_ptr());
  const int64_t by_batch = codes.stride(0), by_stage = codes.stride(1), by_frame = codes.stride(2);
  int64_t low = 0, high = 0;
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t k = 0; k < stages; ++k) {
      const int64_t* word = index + b * by_batch + k * by_stage;
      for (int64_t t = 0; t < frames; ++t) {
        low = std::min(low, word[t * by_frame]);
        high = std::max(high, word[t * by_frame]);
      }
    }
  }
  STD_TORCH_CHECK(low >= -1 && high < words, "fastcodec: rvq_decode: codes ", low, "..", high,
                  " are outside -1..", words - 1);
  Tensor out = empty_time_major(batch, features, frames);
  const fastcodec::RvqDecode p = {index,     by_batch, by_stage, by_frame, data(codebooks),
                                  data(out), frames,   features, words,    stages};
  constexpr int64_t kBlock = 32;
  const int64_t blocks = (frames + kBlock - 1) / kBlock;
  const int64_t flops = kWeightUses * batch * frames * stages * features;
  parallel(batch * blocks, flops, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = i % blocks * kBlock;
      table().rvq_decode(p, i / blocks, begin, std::min(begin + kBlock, frames));
    }
  });
  return out;
}

// Statistics over all of a signal's channels and frames, in double, from blocks of frames that do
// not depend on the threads.
Tensor group_norm(Tensor x, Tensor weight, Tensor bias, double epsilon) {
  const Signal s(x, "group_norm: x");
  check_vector(weight, s.channels, "group_norm: weight");
  check_vector(bias, s.channels, "group_norm: bias");
  constexpr int64_t kBlock = 256;
  const int64_t blocks = (s.frames + kBlock - 1) / kBlock, values = s.frames * s.channels;
  std::vector<float> copy;
  const float* from = dense(s, copy);
  Tensor out = empty_time_major(s.batch, s.channels, s.frames);
  std::vector<double> sums(s.batch * blocks * 2);
  parallel(s.batch * blocks, 4 * s.batch * values, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = i % blocks * kBlock, count = std::min(kBlock, s.frames - begin);
      const float* v = from + i / blocks * values + begin * s.channels;
      table().moments(v, count * s.channels, &sums[2 * i], &sums[2 * i + 1]);
    }
  });
  for (int64_t b = 0; b < s.batch; ++b) {
    double sum = 0, square = 0;
    for (int64_t i = b * blocks; i < (b + 1) * blocks; ++i) {
      sum += sums[2 * i];
      square += sums[2 * i + 1];
    }
    const double mean = sum / values, variance = square / values - mean * mean;
    std::vector<float> scale(s.channels), shift(s.channels);
    for (int64_t c = 0; c < s.channels; ++c) {
      const double factor = data(weight)[c] / std::sqrt(std::max(variance, 0.0) + epsilon);
      scale[c] = static_cast<float>(factor);
      shift[c] = static_cast<float>(data(bias)[c] - mean * factor);
    }
    parallel(s.frames, 2 * values, [&](int64_t first, int64_t last) {
      const int64_t at = b * values + first * s.channels;
      table().affine(from + at, scale.data(), shift.data(), last - first, s.channels,
                     data(out) + at);
    });
  }
  return out;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const char* fastcodec_schemas() {
  return "conv1d(Tensor x, Tensor weight, Tensor? bias=None, Tensor? residual=None, "
         "Tensor? alpha=None, Tensor? beta=None, Tensor? packed=None, SymInt stride=1, "
         "SymInt dilation=1, SymInt groups=1, SymInt activation=0, float slope=0.0) -> Tensor\n"
         "conv1d_pack(Tensor weight, SymInt groups=1) -> Tensor\n"
         "conv_transpose1d(Tensor x, Tensor weight, Tensor? bias=None, Tensor? alpha=None, "
         "Tensor? beta=None, Tensor? packed=None, SymInt stride=1, SymInt groups=1, "
         "SymInt activation=0, float slope=0.0) -> Tensor\n"
         "conv_transpose1d_pack(Tensor weight, SymInt stride=1, SymInt groups=1) -> Tensor\n"
         "snake(Tensor x, Tensor alpha, Tensor? beta=None) -> Tensor\n"
         "lstm(Tensor x, Tensor h, Tensor c, Tensor weight_ih, Tensor weight_hh, Tensor bias_ih, "
         "Tensor bias_hh, Tensor? packed=None, bool skip=False) -> (Tensor, Tensor, Tensor)\n"
         "lstm_pack(Tensor weight_ih, Tensor weight_hh) -> Tensor\n"
         "rvq_encode(Tensor x, Tensor codebooks, Tensor? packed=None) -> Tensor\n"
         "rvq_encode_pack(Tensor codebooks) -> Tensor\n"
         "rvq_decode(Tensor codes, Tensor codebooks) -> Tensor\n"
         "group_norm(Tensor x, Tensor weight, Tensor bias, float epsilon=1e-05) -> Tensor\n";
}

STABLE_TORCH_LIBRARY_IMPL(fastcodec, CPU, m) {
  m.impl("conv1d", TORCH_BOX(&conv1d));
  m.impl("conv1d_pack", TORCH_BOX(&conv1d_pack));
  m.impl("conv_transpose1d", TORCH_BOX(&conv_transpose1d));
  m.impl("conv_transpose1d_pack", TORCH_BOX(&conv_transpose1d_pack));
  m.impl("snake", TORCH_BOX(&snake));
  m.impl("lstm", TORCH_BOX(&lstm));
  m.impl("lstm_pack", TORCH_BOX(&lstm_pack));
  m.impl("rvq_encode", TORCH_BOX(&rvq_encode));
  m.impl("rvq_encode_pack", TORCH_BOX(&rvq_pack));
  m.impl("rvq_decode", TORCH_BOX(&rvq_decode));
  m.impl("group_norm", TORCH_BOX(&group_norm));
}
