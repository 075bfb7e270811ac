// attention: its torch side.
#include <cmath>

#include "glue.h"

namespace fastcodec {

namespace {

// A [B, C, T] tensor as rows of adjacent channels: itself, or a copy.
struct Rows {
  std::vector<float> copy;
  const float* x;
  int64_t batch_stride, frame_stride;
  explicit Rows(const Signal& s)
      : x(s.x), batch_stride(s.batch_stride), frame_stride(s.frame_stride) {
    if (s.time_major()) return;
    x = dense(s, copy), frame_stride = s.channels, batch_stride = s.frames * s.channels;
  }
};

const int64_t* check_span(const Tensor& t, int64_t frames, const char* what) {
  STD_TORCH_CHECK(t.is_cpu() && t.scalar_type() == torch::headeronly::ScalarType::Long &&
                      t.dim() == 1 && t.size(0) == frames && t.is_contiguous(),
                  "fastcodec: attention: ", what, " must be a contiguous int64 vector of ", frames);
  return static_cast<const int64_t*>(t.data_ptr());
}

}  // namespace

void run_attention(const Attention& p, int64_t batch) {
  const int64_t block = table().attention_block(), blocks = (p.frames + block - 1) / block;
  int64_t widest = 0, total = 0;
  for (int64_t begin = 0; begin < p.frames; begin += block) {
    int64_t low = p.keys, high = 0;
    for (int64_t t = begin; t < std::min(begin + block, p.frames); ++t) {
      const int64_t from = std::max<int64_t>(0, p.first[t]), to = std::min(p.keys, p.last[t]);
      if (from >= to) continue;
      low = std::min(low, from), high = std::max(high, to), total += to - from;
    }
    widest = std::max(widest, high - low);
  }
  const int64_t size = table().attention_scratch_size(p, widest);
  parallel(batch * p.heads * blocks, 6 * p.features * p.heads * batch * total,
           [&](int64_t begin, int64_t end) {
             float* memory = scratch(size).data();
             for (int64_t i = begin; i < end; ++i) {
               const int64_t t = i % blocks * block, pair = i / blocks;
               table().attention(p, pair / p.heads, pair % p.heads, t,
                                 std::min(t + block, p.frames), memory);
             }
           });
}

void rotate(const float* frequency, int64_t pairs, int64_t position, int64_t frames, float* turns) {
  for (int64_t t = 0; t < frames; ++t) {
    for (int64_t i = 0; i < pairs; ++i, turns += 2) {
      const double angle = static_cast<float>(position + t) * frequency[i];
      turns[0] = static_cast<float>(std::cos(angle)),
      turns[1] = static_cast<float>(std::sin(angle));
    }
  }
}

Tensor rotations(Tensor frequency, int64_t position, int64_t frames) {
  check_float(frequency, "rotations: frequency");
  STD_TORCH_CHECK(frequency.dim() == 1 && frequency.is_contiguous() && frames >= 0,
                  "fastcodec: rotations: frequency must be a contiguous vector");
  const int64_t pairs = frequency.size(0);
  Tensor out = empty({frames, pairs, 2}, {2 * pairs, 2, 1});
  rotate(data(frequency), pairs, position, frames, data(out));
  return out;
}

Tensor attention(Tensor q, Tensor k, Tensor v, Tensor first, Tensor last, int64_t heads,
                 double scale) {
  const Signal query(q, "attention: q"), key(k, "attention: k"), value(v, "attention: v");
  const int64_t features = heads > 0 ? query.channels / heads : 0;
  STD_TORCH_CHECK(features > 0 && features * heads == query.channels,
                  "fastcodec: attention: q must be [B, heads * D, T]");
  const int64_t kv_heads = key.channels / features;
  STD_TORCH_CHECK(kv_heads > 0 && kv_heads * features == key.channels && heads % kv_heads == 0 &&
                      key.channels == value.channels && key.frames == value.frames &&
                      key.batch == query.batch && value.batch == query.batch,
                  "fastcodec: attention: k and v must both be [B, kv_heads * ", features,
                  ", S], heads a multiple of kv_heads");
  const Rows qs(query), ks(key), vs(value);
  Attention p = {};
  p.q = qs.x, p.q_batch = qs.batch_stride, p.q_frame = qs.frame_stride;
  p.rows[0] = {ks.x,
               vs.x,
               ks.batch_stride,
               ks.frame_stride,
               features,
               vs.batch_stride,
               vs.frame_stride,
               features,
               key.frames};
  p.first = check_span(first, query.frames, "first");
  p.last = check_span(last, query.frames, "last");
  Tensor out = empty_time_major(query.batch, query.channels, query.frames);
  p.out = data(out), p.frames = query.frames, p.keys = key.frames;
  p.heads = heads, p.kv_heads = kv_heads, p.features = features,
  p.scale = static_cast<float>(scale);
  run_attention(p, query.batch);
  return out;
}

}  // namespace fastcodec
