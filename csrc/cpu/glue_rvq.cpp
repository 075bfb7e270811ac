// rvq_encode and rvq_decode: their torch side.
#include "glue.h"

namespace fastcodec {

static void check_codebooks(const Tensor& codebooks) {
  check_float(codebooks, "codebooks");
  STD_TORCH_CHECK(codebooks.dim() == 3 && codebooks.is_contiguous(),
                  "fastcodec: codebooks must be a contiguous [K, N, D]");
}

static Tensor empty_codes(int64_t batch, int64_t stages, int64_t frames) {
  AtenTensorHandle handle;
  const int64_t sizes[] = {batch, stages, frames};
  const int64_t strides[] = {stages * frames, frames, 1};
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      3, sizes, strides, aoti_torch_dtype_int64(), aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

static void check_codes(const Tensor& codes, int64_t most_stages, int64_t words, const char* op) {
  STD_TORCH_CHECK(codes.is_cpu() && codes.dim() == 3 && codes.size(1) <= most_stages &&
                      codes.scalar_type() == torch::headeronly::ScalarType::Long,
                  "fastcodec: ", op, ": codes must be [B, K <= ", most_stages, ", T] int64");
  const int64_t* index = static_cast<const int64_t*>(codes.data_ptr());
  int64_t low = 0, high = 0;
  for (int64_t b = 0; b < codes.size(0); ++b) {
    for (int64_t k = 0; k < codes.size(1); ++k) {
      const int64_t* word = index + b * codes.stride(0) + k * codes.stride(1);
      for (int64_t t = 0; t < codes.size(2); ++t) {
        low = std::min(low, word[t * codes.stride(2)]);
        high = std::max(high, word[t * codes.stride(2)]);
      }
    }
  }
  STD_TORCH_CHECK(low >= -1 && high < words, "fastcodec: ", op, ": codes ", low, "..", high,
                  " are outside -1..", words - 1);
}

// Of a type without NaN: it holds bytes as well as floats, and is to equal itself.
Tensor rvq_encode_pack(Tensor codebooks) {
  check_codebooks(codebooks);
  const int64_t words = codebooks.size(1), features = codebooks.size(2);
  const int64_t size = table().rvq_packed_size(words, features);
  AtenTensorHandle handle;
  const int64_t sizes[] = {codebooks.size(0) * size}, strides[] = {1};
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      1, sizes, strides, aoti_torch_dtype_int32(), aoti_torch_device_type_cpu(), 0, &handle));
  Tensor packed(handle);
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
  STD_TORCH_CHECK(own.scalar_type() == torch::headeronly::ScalarType::Int &&
                      own.numel() >= stages * table().rvq_packed_size(words, s.channels),
                  "fastcodec: rvq_encode: packed is too short");
  Tensor codes = empty_codes(s.batch, stages, s.frames);
  std::vector<float> copy;
  // Features of a wider signal, as grouped quantizers take them, are read in place.
  const bool in_place = s.time_major();
  const fastcodec::RvqEncode p = {in_place ? s.x : dense(s, copy),
                                  in_place ? s.batch_stride : s.frames * s.channels,
                                  in_place ? s.frame_stride : s.channels,
                                  data(own),
                                  data(codebooks),
                                  static_cast<int64_t*>(codes.data_ptr()),
                                  s.frames,
                                  s.channels,
                                  words,
                                  stages};
  const int64_t rows = s.batch * s.frames;
  const auto run = [&](int64_t first, int64_t last) {
    auto& residual = scratch(table().rvq_scratch_size(last - first, words, s.channels));
    table().rvq_encode(p, first, last, residual.data());
  };
  parallel(rows, 2 * rows * stages * words * s.channels, run);
  return codes;
}

Tensor rvq_decode(Tensor codes, Tensor codebooks) {
  check_codebooks(codebooks);
  const int64_t words = codebooks.size(1), features = codebooks.size(2);
  check_codes(codes, codebooks.size(0), words, "rvq_decode");
  const int64_t batch = codes.size(0), stages = codes.size(1), frames = codes.size(2);
  const int64_t* index = static_cast<const int64_t*>(codes.data_ptr());
  const int64_t by_batch = codes.stride(0), by_stage = codes.stride(1), by_frame = codes.stride(2);
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

Tensor rvq_encode_factorised_pack(Tensor codebooks) {
  check_codebooks(codebooks);
  const int64_t words = codebooks.size(1), features = codebooks.size(2);
  const int64_t size = table().rvq_factorised_packed_size(words, features);
  Tensor packed = empty_vector(codebooks.size(0) * size);
  for (int64_t level = 0; level < codebooks.size(0); ++level) {
    table().rvq_factorised_pack(data(codebooks) + level * words * features, words, features,
                                data(packed) + level * size);
  }
  return packed;
}

static void check_map(const Tensor& weight, const Tensor& bias, int64_t rows, int64_t columns,
                      const Tensor& codebooks, const char* what) {
  check_float(weight, what), check_float(bias, what);
  const int64_t levels = codebooks.size(0);
  STD_TORCH_CHECK(weight.dim() == 3 && weight.is_contiguous() && weight.size(0) == levels &&
                      weight.size(1) == rows && weight.size(2) == columns && bias.dim() == 2 &&
                      bias.is_contiguous() && bias.size(0) == levels && bias.size(1) == rows,
                  "fastcodec: ", what, " must be contiguous: weight [", levels, ", ", rows, ", ",
                  columns, "] and bias [", levels, ", ", rows, "]");
}

// f(p, first row, last row, scratch) over blocks of rows.
template <typename F>
static void over_blocks(const RvqFactorised& p, int64_t rows, int64_t flops, const F& f) {
  const int64_t block = table().rvq_factorised_block(), blocks = (rows + block - 1) / block;
  parallel(blocks, flops, [&](int64_t first, int64_t last) {
    auto& memory = scratch(table().rvq_factorised_scratch_size(p));
    f(p, first * block, std::min(last * block, rows), memory.data());
  });
}

Tensor rvq_encode_factorised(Tensor x, Tensor in_weight, Tensor in_bias, Tensor codebooks,
                             Tensor out_weight, Tensor out_bias, MaybeTensor packed) {
  check_codebooks(codebooks);
  const Signal s(x, "rvq_encode_factorised: x");
  RvqFactorised p = {};
  p.levels = codebooks.size(0), p.codewords = codebooks.size(1), p.features = codebooks.size(2);
  p.channels = s.channels, p.frames = s.frames;
  check_map(in_weight, in_bias, p.features, p.channels, codebooks, "rvq_encode_factorised: in");
  check_map(out_weight, out_bias, p.channels, p.features, codebooks, "rvq_encode_factorised: out");
  const Tensor own = packed.has_value() ? *packed : rvq_encode_factorised_pack(codebooks);
  // A longer one belongs to the same quantizer with more levels.
  STD_TORCH_CHECK(
      own.numel() >= p.levels * table().rvq_factorised_packed_size(p.codewords, p.features),
      "fastcodec: rvq_encode_factorised: packed is too short");
  Tensor codes = empty_codes(s.batch, p.levels, s.frames);
  p.x = s.x, p.x_batch = s.batch_stride, p.x_channel = s.channel_stride, p.x_frame = s.frame_stride;
  p.in_weight = data(in_weight), p.in_bias = data(in_bias), p.packed = data(own);
  p.codebooks = data(codebooks), p.out_weight = data(out_weight), p.out_bias = data(out_bias);
  p.found = static_cast<int64_t*>(codes.data_ptr());
  const int64_t rows = s.batch * s.frames, flops = p.features * (2 * p.channels + p.codewords);
  over_blocks(p, rows, 2 * rows * p.levels * flops, table().rvq_factorised_encode);
  return codes;
}

Tensor rvq_decode_factorised(Tensor codes, Tensor codebooks, Tensor out_weight, Tensor out_bias) {
  check_codebooks(codebooks);
  RvqFactorised p = {};
  p.codewords = codebooks.size(1), p.features = codebooks.size(2);
  STD_TORCH_CHECK(out_weight.dim() == 3, "fastcodec: rvq_decode_factorised: out_weight must be ",
                  "[K, D, d]");
  p.channels = out_weight.size(1);
  check_map(out_weight, out_bias, p.channels, p.features, codebooks, "rvq_decode_factorised: out");
  check_codes(codes, codebooks.size(0), p.codewords, "rvq_decode_factorised");
  p.levels = codes.size(1), p.frames = codes.size(2);
  Tensor out = empty_time_major(codes.size(0), p.channels, p.frames);
  p.codes = static_cast<const int64_t*>(codes.data_ptr());
  p.by_batch = codes.stride(0), p.by_level = codes.stride(1), p.by_frame = codes.stride(2);
  p.codebooks = data(codebooks), p.out_weight = data(out_weight), p.out_bias = data(out_bias);
  p.out = data(out);
  const int64_t rows = codes.size(0) * p.frames;
  over_blocks(p, rows, 2 * rows * p.levels * p.features * p.channels,
              table().rvq_factorised_decode);
  return out;
}

}  // namespace fastcodec
