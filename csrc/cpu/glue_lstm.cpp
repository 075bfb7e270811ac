// lstm: its torch side.
#include "glue.h"
#include "relay.h"

namespace fastcodec {

static Conv lstm_input_shape(const Tensor& weight_ih) {
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
    const Lstm layer = {gates.data(),
                        data(own) + l * size + input_size,
                        {data(h_out) + l * state, h_next.data()},
                        data(c_out) + l * state,
                        data(out),
                        add ? input : nullptr,
                        s.batch,
                        s.frames,
                        hidden};
    Relay relay(s.frames, blocks, thread_count());
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

}  // namespace fastcodec
