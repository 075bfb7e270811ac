// activation and snake: their torch side, and the parameters of every activation.
#include "glue.h"

namespace fastcodec {

Parameters::Parameters(int64_t kind, double slope, const MaybeTensor& alpha,
                       const MaybeTensor& beta, int64_t channels) {
  STD_TORCH_CHECK(kind >= 0 && kind <= static_cast<int64_t>(Activation::kSigmoid),
                  "fastcodec: there is no activation ", kind);
  check_vector(alpha, channels, "alpha");
  check_vector(beta, channels, "beta");
  prologue = {static_cast<Activation>(kind), nullptr, nullptr, nullptr, static_cast<float>(slope)};
  if (prologue.kind != Activation::kSnake) return;
  STD_TORCH_CHECK(alpha.has_value(), "fastcodec: snake needs alpha");
  set_snake(prologue, data(alpha), data(beta), channels, columns);
}

void set_snake(Prologue& p, const float* alpha, const float* beta, int64_t channels,
               std::vector<float>& columns) {
  const int64_t size = channels + kLongestVector;
  columns.resize(3 * size);
  for (int64_t i = 0; channels > 0 && i < size; ++i) {
    constexpr double kPi = 3.14159265358979323846;
    const int64_t c = i % channels;
    const double turns = alpha[c] / kPi;
    columns[i] = static_cast<float>(turns);
    columns[size + i] = static_cast<float>(turns - columns[i]);
    columns[2 * size + i] = 1.0f / ((beta != nullptr ? beta : alpha)[c] + 1e-9f);
  }
  p.turns = columns.data(), p.turns_low = p.turns + size, p.inverse_beta = p.turns_low + size;
}

// Channel by channel, or in tiles of frames, which hold whole vectors.
constexpr int64_t kTile = 256;
// Output that would throw everything else out of the caches.
constexpr int64_t kStreamFloats = 1 << 22;

static Tensor empty_like(const Signal& s) {
  if (s.time_major()) return empty_time_major(s.batch, s.channels, s.frames);
  return empty({s.batch, s.channels, s.frames}, {s.channels * s.frames, s.frames, 1});
}

static void pointwise(const Signal& s, Prologue p, float* out) {
  const int64_t size = s.batch * s.channels * s.frames, flops = 20 * size;
  p.stream = size >= kStreamFloats;
  if (s.time_major()) {
    const int64_t tiles = (s.frames + kTile - 1) / kTile;
    parallel(s.batch * tiles, flops, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const int64_t b = i / tiles, t = i % tiles * kTile;
        stage(p, s, b, t, std::min(kTile, s.frames - t), out + (b * s.frames + t) * s.channels);
      }
    });
    return;
  }
  parallel(s.batch * s.channels, flops, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t b = i / s.channels, c = i % s.channels;
      Prologue one = p;
      if (p.turns != nullptr) one.turns += c, one.turns_low += c, one.inverse_beta += c;
      table().prologue(one, s.x + b * s.batch_stride + c * s.channel_stride, 1, 1, s.frames, 1,
                       out + i * s.frames);
    }
  });
}

static Tensor pointwise(const Signal& s, const Prologue& p) {
  Tensor out = on_huge_pages(empty_like(s));
  pointwise(s, p, data(out));
  return out;
}

Tensor activation(Tensor x, int64_t kind, double slope) {
  STD_TORCH_CHECK(kind != static_cast<int64_t>(Activation::kSnake),
                  "fastcodec: snake is an op of its own");
  const Signal s(x, "activation: x");
  return pointwise(s, Parameters(kind, slope, std::nullopt, std::nullopt, s.channels).prologue);
}

Tensor snake(Tensor x, Tensor alpha, MaybeTensor beta) {
  const Signal s(x, "snake: x");
  const int64_t kind = static_cast<int64_t>(Activation::kSnake);
  return pointwise(s, Parameters(kind, 0, alpha, beta, s.channels).prologue);
}

// Into the memory of `out`, which may be x.
void snake_out(Tensor x, Tensor alpha, MaybeTensor beta, Tensor out) {
  const Signal s(x, "snake_out: x"), to(out, "snake_out: out");
  const int64_t frame = s.time_major() ? s.channels : 1;
  const auto one_or = [](int64_t size, int64_t stride, int64_t wanted) {
    return size <= 1 || stride == wanted;
  };
  STD_TORCH_CHECK(
      to.x == data(out) && to.batch == s.batch && to.channels == s.channels &&
          to.frames == s.frames && one_or(s.batch, to.batch_stride, s.channels * s.frames) &&
          one_or(s.channels, to.channel_stride, s.time_major() ? 1 : s.frames) &&
          one_or(s.frames, to.frame_stride, frame),
      "fastcodec: snake_out: out must be dense, of the shape and the memory layout of x");
  const int64_t size = s.batch * s.channels * s.frames;
  const float *begin = to.x, *end = begin + size, *x_begin = data(x);
  const int64_t span = size == 0 ? 0
                                 : (x.size(0) - 1) * x.stride(0) + (x.size(1) - 1) * x.stride(1) +
                                       (x.size(2) - 1) * x.stride(2) + 1;
  const bool apart = end <= x_begin || x_begin + span <= begin;
  STD_TORCH_CHECK(apart || s.owner.data_ptr() != x.data_ptr() || (begin == x_begin && span == size),
                  "fastcodec: snake_out: out must be x itself or memory of its own");
  const int64_t kind = static_cast<int64_t>(Activation::kSnake);
  pointwise(s, Parameters(kind, 0, alpha, beta, s.channels).prologue, data(out));
}

// Gradients of x, alpha and beta, as if beta were not alpha.
std::tuple<Tensor, Tensor, Tensor> snake_backward(Tensor grad, Tensor x, Tensor alpha,
                                                  MaybeTensor beta) {
  const Signal s(x, "snake_backward: x"), g(grad, "snake_backward: grad");
  const int64_t channels = s.channels, frames = s.frames;
  const int64_t kind = static_cast<int64_t>(Activation::kSnake);
  const Parameters parameters(kind, 0, alpha, beta, channels);
  const Prologue& p = parameters.prologue;
  const bool rows = s.time_major();
  STD_TORCH_CHECK(
      g.batch == s.batch && g.channels == channels && g.frames == frames &&
          g.time_major() == rows &&
          (!rows || frames <= 1 || (s.frame_stride == channels && g.frame_stride == channels)),
      "fastcodec: snake_backward: grad and x must be dense and of one layout");
  Tensor dx = on_huge_pages(empty_like(s));
  std::vector<float> gain(channels);
  for (int64_t c = 0; c < channels; ++c) gain[c] = data(alpha)[c] * p.inverse_beta[c];
  constexpr int64_t kFrames = 64;
  const int64_t tiles = rows ? (frames + kFrames - 1) / kFrames : channels;
  const int64_t a_tile = rows ? 2 * channels : 2;
  std::vector<double> sums(s.batch * tiles * a_tile);
  parallel(s.batch * tiles, 40 * s.batch * channels * frames, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t b = i / tiles, at = i % tiles, c = rows ? 0 : at, t = rows ? at * kFrames : 0;
      const auto of = [&](const Signal& of) {
        return of.x + b * of.batch_stride + c * of.channel_stride + t * of.frame_stride;
      };
      float* to = data(dx) + b * channels * frames + (rows ? t * channels : c * frames);
      const SnakeBackward q = {of(g), of(s), to, p.turns + c, p.turns_low + c, gain.data() + c};
      double* out = sums.data() + i * a_tile;
      if (rows) {
        table().snake_backward_rows(q, std::min(kFrames, frames - t), channels, out);
      } else {
        table().snake_backward_run(q, frames, out);
      }
    }
  });
  Tensor d_alpha = empty_vector(channels), d_beta = empty_vector(channels);
  for (int64_t c = 0; c < channels; ++c) {
    double of_alpha = 0, of_beta = 0;
    for (int64_t i = rows ? 0 : c; i < s.batch * tiles; i += rows ? 1 : channels) {
      of_alpha += sums[i * a_tile + (rows ? c : 0)];
      of_beta += sums[i * a_tile + (rows ? channels + c : 1)];
    }
    const double inverse = p.inverse_beta[c];
    data(d_alpha)[c] = static_cast<float>(of_alpha * inverse);
    data(d_beta)[c] = static_cast<float>(-of_beta * inverse * inverse);
  }
  return {dx, d_alpha, d_beta};
}

}  // namespace fastcodec
