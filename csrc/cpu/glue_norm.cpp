// group_norm and layer_norm: their torch side.
#include <cmath>

#include "glue.h"

namespace fastcodec {

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

// Statistics in double, the rest in float; rows [frames][channels].
void normalise_rows(const float* x, int64_t frames, int64_t channels, const float* weight,
                    const float* bias, float epsilon, float* out) {
  for (int64_t t = 0; t < frames; ++t, x += channels, out += channels) {
    double sum = 0, square = 0;
    table().moments(x, channels, &sum, &square);
    const double mean = sum / channels, variance = square / channels - mean * mean;
    const float middle = static_cast<float>(mean);
    const float factor = static_cast<float>(1 / std::sqrt(std::max(variance, 0.0) + epsilon));
    for (int64_t c = 0; c < channels; ++c) out[c] = (x[c] - middle) * factor * weight[c] + bias[c];
  }
}

Tensor layer_norm(Tensor x, Tensor weight, Tensor bias, double epsilon) {
  const Signal s(x, "layer_norm: x");
  check_vector(weight, s.channels, "layer_norm: weight");
  check_vector(bias, s.channels, "layer_norm: bias");
  std::vector<float> copy;
  const float* from = dense(s, copy);
  Tensor out = empty_time_major(s.batch, s.channels, s.frames);
  const int64_t rows = s.batch * s.frames;
  parallel(rows, 8 * rows * s.channels, [&](int64_t first, int64_t last) {
    const int64_t at = first * s.channels;
    normalise_rows(from + at, last - first, s.channels, data(weight), data(bias),
                   static_cast<float>(epsilon), data(out) + at);
  });
  return out;
}

}  // namespace fastcodec
