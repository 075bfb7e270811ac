// The contract between the torch side (glue.h) and the kernels, which are compiled once per
// instruction set. Kernels take raw pointers, never allocate and never start threads: each works on
// a range of independent items that the glue hands out. Sizes and strides are in elements; "frame"
// is a step of a layer's own time axis.
#pragma once

#include <cstdint>

namespace fastcodec {

// Values of the ops' `activation` argument (fastcodec/ops/conv1d.py: ACTIVATIONS).
enum class Activation : int64_t {
  kNone = 0,
  kElu = 1,
  kLeakyRelu = 2,
  kSnake = 3,
  kGelu = 4,
  kSilu = 5,
  kTanh = 6,
  kSigmoid = 7
};

// An activation's parameters: leaky ReLU is max(x, slope x), snake x + sin^2(alpha x) *
// inverse_beta. Snake's are one a channel; from the last channel on they begin again, for as many
// values as a vector has. `turns` + `turns_low` is alpha / pi.
struct Prologue {
  Activation kind;
  const float *turns, *turns_low, *inverse_beta;
  float slope;
  bool stream;  // write past the caches: what is much larger than they are
};
constexpr int64_t kLongestVector = 16;

// Gradients of snake in a tile of one signal: of x, and the sums over its frames of
// grad x sin(2 alpha x) and grad sin^2(alpha x), of each channel.
struct SnakeBackward {
  const float *grad, *x;  // both [frames][channels], or one channel's frames
  float* dx;
  const float *turns, *turns_low, *gain;  // gain: alpha * inverse_beta
};

// A convolution over time-major memory without padding. `blocks` column blocks of `width` columns
// each read channel group (block % groups): a convolution has one block a group; a transposed one
// has the columns of all its phases in one block, or one block a phase and group.
struct Conv {
  const float* x;  // [batch][frames in][channels], channel stride 1
  int64_t x_batch, x_frame;
  const float* weight;    // from conv_pack
  const float* bias;      // column n uses bias[n % bias_size]; or null
  const float* residual;  // like out; or null
  float* out;             // [batch][frames][blocks * width]
  int64_t bias_size, frames, channels, taps, stride, dilation, groups, blocks, width;
  // Operands rounded to bfloat16, sums float32, for an even number of channels a group and more
  // than two columns a block. x comes from conv_round; what that and conv_pack write is the
  // kernels' own affair, and x_frame counts floats of it.
  bool medium;
};

// One layer. A row of gates is [block][i, f, g, o][lane]. Step t reads operand[t % 2] and writes
// operand[(t + 1) % 2]: h, as lstm_round makes it.
struct Lstm {
  const float* x;       // [batch * frames][words], from lstm_round
  const float* bias;    // a row of gates, from lstm_bias
  const float* weight;  // from lstm_pack
  float* gates;         // [batch * frames] rows: W_ih x + b_ih + b_hh
  float* operand[2];    // [batch][words]
  float* h;             // [batch][hidden], after the last step
  float* c;             // [batch][hidden], updated in place
  float* out;           // [batch][frames][hidden]
  const float* skip;    // like out, added to it; or null. It may be what out was made of before.
  int64_t batch, frames, hidden, blocks;
  bool medium;  // operands rounded to bfloat16, sums and state float32
};

// Of a layer: blocks a step; words of an operand, floats in a row of gates, panels of the input
// product, floats of the packed weights.
struct LstmSizes {
  int64_t blocks, words, gates, panels, packed;
};

struct RvqEncode {
  const float* x;  // [batch][frames][features], feature stride 1
  int64_t x_batch, x_frame;
  const float* packed;     // from rvq_pack
  const float* codebooks;  // [stages][codewords][features]
  int64_t* codes;          // [batch][stages][frames]
  int64_t frames, features, codewords, stages;
};

struct RvqDecode {
  const int64_t* codes;  // strides by_batch, by_stage, by_frame; below zero: no word
  int64_t by_batch, by_stage, by_frame;
  const float* codebooks;  // [stages][codewords][features]
  float* out;              // [batch][frames][features]
  int64_t frames, features, codewords, stages;
};

// Rows of keys and values, one after the other; the features of a head are adjacent.
struct KeyRows {
  const float *k, *v;
  int64_t k_batch, k_frame, k_head, v_batch, v_frame, v_head, count;
};

struct Attention {
  const float* q;  // [batch][frames][heads * features], by these strides
  int64_t q_batch, q_frame;
  KeyRows rows[3];              // the keys lie in up to three places
  const int64_t *first, *last;  // [frames]: the span of keys of a query
  float* out;                   // [batch][frames][heads * features]
  int64_t frames, keys, heads, kv_heads, features;
  float scale;
};

// Levels of a residual quantizer between linear maps. Encoding reads x and writes found, decoding
// reads codes and writes out.
struct RvqFactorised {
  const float* x;  // [batch][channels][frames], by these strides
  int64_t x_batch, x_channel, x_frame;
  const int64_t* codes;  // [batch][levels][frames], by these strides; below zero: no word
  int64_t by_batch, by_level, by_frame;
  const float *in_weight, *in_bias;    // [levels][features][channels], [levels][features]
  const float* codebooks;              // [levels][codewords][features]
  const float* packed;                 // from rvq_factorised_pack
  const float *out_weight, *out_bias;  // [levels][channels][features], [levels][channels]
  int64_t* found;                      // [batch][levels][frames]
  float* out;                          // [batch][frames][channels]
  int64_t frames, channels, features, codewords, levels;
};

struct Kernels {
  const char* name;

  // conv1d.cpp: weight [blocks * width][channels / groups][taps] -> packed
  int64_t (*conv_packed_size)(const Conv&);
  void (*conv_pack)(const Conv&, const float* weight, float* packed);
  int64_t (*conv_panels)(const Conv&);
  void (*conv)(const Conv&, int64_t batch, int64_t frame_begin, int64_t frame_end,
               int64_t panel_begin, int64_t panel_end);

  // activation.cpp: out [frames][channels] = activation of x
  void (*prologue)(const Prologue&, const float* x, int64_t channel_stride, int64_t frame_stride,
                   int64_t frames, int64_t channels, float* out);

  // activation.cpp: a tile of adjacent channels, or a run of one channel's frames; sums
  // [2][channels] and [2]
  void (*snake_backward_rows)(const SnakeBackward&, int64_t frames, int64_t channels, double* sums);
  void (*snake_backward_run)(const SnakeBackward&, int64_t frames, double* sums);

  // lstm.cpp: the input product of rows (batch, frame), and steps, each of all blocks
  LstmSizes (*lstm_sizes)(int64_t hidden, bool medium);
  void (*lstm_pack)(const float* weight_ih, const float* weight_hh, int64_t hidden, bool medium,
                    float* packed);
  void (*lstm_bias)(const float* bias_ih, const float* bias_hh, int64_t hidden, float* bias);
  void (*lstm_round)(const float* x, int64_t rows, int64_t hidden, bool medium, float* words);
  void (*lstm_inputs)(const Lstm&, int64_t row_begin, int64_t row_end, int64_t panel_begin,
                      int64_t panel_end);
  void (*lstm_step)(const Lstm&, int64_t step, int64_t block);

  // rvq_encode.cpp: one stage's codebook [codewords][features] -> packed; rows are (batch, frame)
  int64_t (*rvq_packed_size)(int64_t codewords, int64_t features);
  void (*rvq_pack)(const float* codebook, int64_t codewords, int64_t features, float* packed);
  int64_t (*rvq_scratch_size)(int64_t rows, int64_t codewords, int64_t features);
  void (*rvq_encode)(const RvqEncode&, int64_t row_begin, int64_t row_end, float* scratch);

  // rvq_decode.cpp
  void (*rvq_decode)(const RvqDecode&, int64_t batch, int64_t frame_begin, int64_t frame_end);

  // group_norm.cpp
  void (*moments)(const float* x, int64_t count, double* sum, double* square);
  void (*affine)(const float* x, const float* scale, const float* shift, int64_t frames,
                 int64_t channels, float* out);

  // attention.cpp: one head's queries [frame_begin, frame_end), best taken by attention_block;
  // scratch of attention_scratch_size(p, the most keys between the first and the last of a block)
  int64_t (*attention_block)();
  int64_t (*attention_scratch_size)(const Attention&, int64_t keys);
  void (*attention)(const Attention&, int64_t batch, int64_t head, int64_t frame_begin,
                    int64_t frame_end, float* scratch);

  // conv1d.cpp: rounds frames [frames][channels] in place to the operand of a medium convolution;
  // gives the floats that a frame then takes, at most channels
  int64_t (*conv_round)(const Conv&, int64_t frames, float* x);
  // rvq_encode_factorised.cpp: one level's codebook -> packed; rows are (batch, frame), best taken
  // by multiples of a block
  int64_t (*rvq_factorised_packed_size)(int64_t codewords, int64_t features);
  void (*rvq_factorised_pack)(const float* codebook, int64_t codewords, int64_t features,
                              float* packed);
  int64_t (*rvq_factorised_block)();
  int64_t (*rvq_factorised_scratch_size)(const RvqFactorised&);
  void (*rvq_factorised_encode)(const RvqFactorised&, int64_t row_begin, int64_t row_end,
                                float* scratch);
  void (*rvq_factorised_decode)(const RvqFactorised&, int64_t row_begin, int64_t row_end,
                                float* scratch);
};

// The table in use, or null where the processor runs none of them or FASTCODEC_ISA=reference.
const Kernels* kernels();

}  // namespace fastcodec
