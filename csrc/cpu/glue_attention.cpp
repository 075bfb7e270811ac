// attention: its torch side.
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
  Attention p = {qs.x,
                 ks.x,
                 vs.x,
                 qs.batch_stride,
                 qs.frame_stride,
                 ks.batch_stride,
                 ks.frame_stride,
                 vs.batch_stride,
                 vs.frame_stride,
                 check_span(first, query.frames, "first"),
                 check_span(last, query.frames, "last")};
  Tensor out = empty_time_major(query.batch, query.channels, query.frames);
  p.out = data(out), p.frames = query.frames, p.keys = key.frames;
  p.heads = heads, p.kv_heads = kv_heads, p.features = features,
  p.scale = static_cast<float>(scale);
  int64_t longest = 0, total = 0;
  for (int64_t t = 0; t < p.frames; ++t) {
    const int64_t count = std::min(p.keys, p.last[t]) - std::max<int64_t>(0, p.first[t]);
    longest = std::max(longest, count), total += std::max<int64_t>(0, count);
  }
  constexpr int64_t kBlock = 16;
  const int64_t blocks = (p.frames + kBlock - 1) / kBlock;
  parallel(query.batch * heads * blocks, 6 * features * heads * query.batch * total,
           [&](int64_t begin, int64_t end) {
             float* scores = scratch(longest).data();
             for (int64_t i = begin; i < end; ++i) {
               const int64_t t = i % blocks * kBlock, pair = i / blocks;
               table().attention(p, pair / heads, pair % heads, t, std::min(t + kBlock, p.frames),
                                 scores);
             }
           });
  return out;
}

}  // namespace fastcodec
