// activation and snake: their torch side, and the parameters of every activation.
#include "glue.h"

namespace fastcodec {

Parameters::Parameters(int64_t kind, double slope, const MaybeTensor& alpha,
                       const MaybeTensor& beta, int64_t channels) {
  STD_TORCH_CHECK(kind >= 0 && kind <= static_cast<int64_t>(Activation::kSigmoid),
                  "fastcodec: there is no activation ", kind);
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

// In tiles of frames where channels are adjacent, else channel by channel.
static Tensor pointwise(const Signal& s, const Prologue& p) {
  const int64_t flops = 20 * s.batch * s.channels * s.frames;
  if (s.time_major()) {
    constexpr int64_t kTile = 256;
    Tensor out = empty_time_major(s.batch, s.channels, s.frames);
    const int64_t tiles = (s.frames + kTile - 1) / kTile;
    parallel(s.batch * tiles, flops, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const int64_t b = i / tiles, t = i % tiles * kTile;
        stage(p, s, b, t, std::min(kTile, s.frames - t),
              data(out) + (b * s.frames + t) * s.channels);
      }
    });
    return out;
  }
  Tensor out = empty({s.batch, s.channels, s.frames}, {s.channels * s.frames, s.frames, 1});
  parallel(s.batch * s.channels, flops, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t b = i / s.channels, c = i % s.channels;
      Prologue one = p;
      if (p.alpha != nullptr) one.alpha += c, one.inverse_beta += c;
      table().prologue(one, s.x + b * s.batch_stride + c * s.channel_stride, 1, 1, s.frames, 1,
                       data(out) + i * s.frames);
    }
  });
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

}  // namespace fastcodec
