// lstm: its torch side.
#include "glue.h"
#include "relay.h"

namespace fastcodec {

// 0 highest, 1 high, 2 medium; the second is the first.
static bool is_medium_lstm(int64_t precision) {
  STD_TORCH_CHECK(precision >= 0 && precision <= 2,
                  "fastcodec: lstm: precision must be 0, 1 or 2, got ", precision);
  return precision == 2;
}

static int64_t width_of(const Tensor& weight_ih, const Tensor& weight_hh) {
  for (const Tensor& w : {weight_ih, weight_hh}) {
    check_float(w, "lstm: weights");
    STD_TORCH_CHECK(w.dim() == 3 && w.is_contiguous() && w.size(1) == 4 * w.size(2) &&
                        w.numel() == weight_ih.numel() && w.size(2) == weight_ih.size(2),
                    "fastcodec: lstm: weights must be contiguous [L, 4 H, H]");
  }
  return weight_ih.size(2);
}

Tensor lstm_pack(Tensor weight_ih, Tensor weight_hh, int64_t precision) {
  const int64_t hidden = width_of(weight_ih, weight_hh), layers = weight_ih.size(0);
  const bool medium = is_medium_lstm(precision);
  const int64_t size = table().lstm_sizes(hidden, medium).packed, one = 4 * hidden * hidden;
  Tensor packed = on_huge_pages(empty_vector(layers * size));
  for (int64_t l = 0; l < layers; ++l) {
    table().lstm_pack(data(weight_ih) + l * one, data(weight_hh) + l * one, hidden, medium,
                      data(packed) + l * size);
  }
  return packed;
}

// The gates of all rows: tiles of rows where there are enough, else panels.
static void run_inputs(const Lstm& p, const LstmSizes& sizes) {
  const int64_t rows = p.batch * p.frames;
  const int64_t tile = std::clamp<int64_t>(kTileFloats / sizes.words, 48, 2048) / 12 * 12;
  const int64_t tiles = (rows + tile - 1) / tile;
  const int64_t flops = 8 * p.hidden * p.hidden * std::max(rows, kWeightUses);
  const bool by_rows = tiles >= thread_count();
  parallel(by_rows ? tiles : sizes.panels, flops, [&](int64_t first, int64_t last) {
    const int64_t row_end = by_rows ? std::min(last * tile, rows) : rows;
    for (int64_t row = by_rows ? first * tile : 0; row < row_end; row += tile) {
      table().lstm_inputs(p, row, std::min(row + tile, row_end), by_rows ? 0 : first,
                          by_rows ? sizes.panels : last);
    }
  });
}

static void run_layer(const Lstm& p, const LstmSizes& sizes) {
  run_inputs(p, sizes);
  Relay relay(p.frames, sizes.blocks, thread_count());
  const int64_t flops = 8 * p.hidden * p.hidden * std::max(p.batch, kWeightUses) * p.frames;
  parallel(relay.count(), flops, [&](int64_t first, int64_t last) {
    for (int64_t share = first; share < last; ++share) {
      relay.run(share, [&](int64_t t, int64_t block) { table().lstm_step(p, t, block); });
    }
  });
}

std::tuple<Tensor, Tensor, Tensor> lstm(Tensor x, Tensor h, Tensor c, Tensor weight_ih,
                                        Tensor weight_hh, Tensor bias_ih, Tensor bias_hh,
                                        MaybeTensor packed, bool skip, int64_t precision) {
  const Kernels& k = table();
  const Signal s(x, "lstm: x");
  const int64_t layers = weight_ih.size(0), hidden = width_of(weight_ih, weight_hh);
  const bool medium = is_medium_lstm(precision);
  for (const Tensor& t : {bias_ih, bias_hh, h, c}) check_float(t, "lstm");
  STD_TORCH_CHECK(s.channels == hidden && bias_ih.numel() == layers * 4 * hidden &&
                      bias_hh.numel() == layers * 4 * hidden &&
                      h.numel() == layers * s.batch * hidden && c.numel() == h.numel() &&
                      bias_ih.is_contiguous() && bias_hh.is_contiguous() && h.is_contiguous() &&
                      c.is_contiguous(),
                  "fastcodec: lstm: x [B, H, T], h and c [L, B, H], biases [L, 4 H], contiguous");
  const LstmSizes sizes = k.lstm_sizes(hidden, medium);
  const Tensor own = packed.has_value() ? *packed : lstm_pack(weight_ih, weight_hh, precision);
  check_vector(own, layers * sizes.packed, "lstm: packed");
  Tensor out = empty_time_major(s.batch, hidden, s.frames);
  Tensor h_out = empty({layers, s.batch, hidden}, {s.batch * hidden, hidden, 1});
  Tensor c_out = empty({layers, s.batch, hidden}, {s.batch * hidden, hidden, 1});
  const int64_t state = s.batch * hidden, rows = s.batch * s.frames;
  std::copy(data(h), data(h) + layers * state, data(h_out));
  std::copy(data(c), data(c) + layers * state, data(c_out));
  std::vector<float> copy, bias(sizes.gates), operands(2 * s.batch * sizes.words);
  std::vector<float> rounded(medium ? rows * sizes.words : 0);
  const float* input = dense(s, copy);
  Lstm p = {};
  p.gates = scratch(rows * sizes.gates).data(), p.bias = bias.data(), p.out = data(out);
  p.operand[0] = operands.data(), p.operand[1] = p.operand[0] + s.batch * sizes.words;
  p.batch = s.batch, p.frames = s.frames, p.hidden = hidden, p.blocks = sizes.blocks;
  p.medium = medium;
  for (int64_t l = 0; l < layers; ++l) {
    p.x = l == 0 ? input : data(out);
    if (medium) {
      k.lstm_round(p.x, rows, hidden, medium, rounded.data());
      p.x = rounded.data();
    }
    p.h = data(h_out) + l * state, p.c = data(c_out) + l * state;
    p.weight = data(own) + l * sizes.packed;
    p.skip = skip && l + 1 == layers ? input : nullptr;
    k.lstm_bias(data(bias_ih) + l * 4 * hidden, data(bias_hh) + l * 4 * hidden, hidden,
                bias.data());
    k.lstm_round(p.h, s.batch, hidden, medium, p.operand[0]);
    run_layer(p, sizes);
  }
  return {out, h_out, c_out};
}

}  // namespace fastcodec
