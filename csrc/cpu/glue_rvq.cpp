// rvq_encode and rvq_decode: their torch side.
#include "glue.h"

namespace fastcodec {

static void check_codebooks(const Tensor& codebooks) {
  check_float(codebooks, "codebooks");
  STD_TORCH_CHECK(codebooks.dim() == 3 && codebooks.is_contiguous(),
                  "fastcodec: codebooks must be a contiguous [K, N, D]");
}

Tensor rvq_encode_pack(Tensor codebooks) {
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
  const Tensor own = packed.has_value() ? *packed : rvq_encode_pack(codebooks);
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

}  // namespace fastcodec
