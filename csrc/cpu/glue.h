// What the torch side of the kernels shares: unpacks tensors, allocates results, cuts the work into
// independent items for torch's threads.
#pragma once

#include <sys/mman.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <tuple>
#include <vector>

#include "isa.h"

namespace fastcodec {

using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

// About 100 us. Waking a thread takes 5 us on a quiet machine, but a time slice where another
// process wants the core: many short regions then run 100 times slower than one thread alone.
constexpr int64_t kSerialFlops = 1 << 23;
constexpr int64_t kWeightUses = 8;          // reading a weight takes as long as this many products
constexpr int64_t kTileFloats = 48 * 1024;  // input of a tile: a fifth of a 1 MB L2
constexpr int64_t kRoundedFloats = 4096;    // half of a 32 kB L1
constexpr int64_t kStagedFrames = 4;        // at least: a call has its cost
constexpr int64_t kApart = 16;              // floats between frames: a cache line
constexpr int64_t kRows = 12;               // frames of a register tile
constexpr int64_t kEnoughFrames = 24;       // for a thread to read all the weights for

inline const Kernels& table() {
  const Kernels* t = fastcodec::kernels();
  STD_TORCH_CHECK(t != nullptr, "fastcodec: the CPU kernels do not run here");
  return *t;
}

inline float* data(const Tensor& t) { return static_cast<float*>(t.data_ptr()); }
inline const float* data(const MaybeTensor& t) { return t.has_value() ? data(*t) : nullptr; }

inline void check_float(const Tensor& t, const char* what) {
  STD_TORCH_CHECK(t.is_cpu() && t.scalar_type() == torch::headeronly::ScalarType::Float,
                  "fastcodec: ", what, " must be a float32 tensor on the CPU");
}

inline void check_vector(const MaybeTensor& t, int64_t size, const char* what) {
  if (!t.has_value()) return;
  check_float(*t, what);
  STD_TORCH_CHECK(t->dim() == 1 && t->size(0) == size && t->is_contiguous(), "fastcodec: ", what,
                  " must be a contiguous vector of ", size);
}

inline Tensor empty(std::initializer_list<int64_t> sizes, std::initializer_list<int64_t> strides) {
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      sizes.size(), sizes.begin(), strides.begin(), aoti_torch_dtype_float32(),
      aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

inline Tensor empty_time_major(int64_t batch, int64_t channels, int64_t frames) {
  return empty({batch, channels, frames}, {frames * channels, 1, channels});
}

// Asks the system for 2 MB pages in a large new tensor: 500 times fewer page faults, which would
// cost more than most arithmetic, and none of a stream's stops at the end of a small page.
inline Tensor on_huge_pages(Tensor t) {
  constexpr uintptr_t kPage = 1 << 21;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(t.data_ptr());
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage;
  const uintptr_t last = (begin + t.numel() * sizeof(float)) / kPage * kPage;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  return t;
}

inline Tensor empty_vector(int64_t size) { return empty({size}, {1}); }

// How many threads a call may take: torch's, but no more than FASTCODEC_THREADS says.
inline int64_t thread_count() {
  static const int64_t most = [] {
    const char* asked = std::getenv("FASTCODEC_THREADS");
    const int64_t number = asked == nullptr ? 0 : std::atoll(asked);
    return number > 0 ? number : INT64_MAX;  // _native.py warns of anything else
  }();
  return std::min<int64_t>(torch::stable::get_num_threads(), most);
}

// f(begin, end) over [0, items), on torch's threads where the work is worth it.
template <typename F>
void parallel(int64_t items, int64_t flops, const F& f) {
  const int64_t threads = thread_count();
  if (items <= 1 || flops < kSerialFlops || threads == 1) {
    f(0, items);
  } else {
    torch::stable::parallel_for(0, items, (items + threads - 1) / threads, f);
  }
}

// A [B, C, T] tensor's memory. Time-major: channels adjacent (also said of a single channel).
struct Signal {
  const float* x;
  int64_t batch, channels, frames, batch_stride, channel_stride, frame_stride;
  Tensor owner;  // keeps the memory
  Signal(const Tensor& t, const char* what) : owner(t) {
    check_float(t, what);
    STD_TORCH_CHECK(t.dim() == 3, "fastcodec: ", what, " must be [B, C, T]");
    const bool one_channel = t.size(1) == 1;
    if (!one_channel && t.stride(1) != 1 && t.stride(2) != 1) owner = torch::stable::contiguous(t);
    x = data(owner);
    batch = t.size(0), channels = t.size(1), frames = t.size(2);
    batch_stride = owner.stride(0), frame_stride = owner.stride(2);
    channel_stride = one_channel ? 1 : owner.stride(1);
  }
  bool time_major() const { return channel_stride == 1; }
  bool packed() const {
    return time_major() && frame_stride == channels && batch_stride == frames * channels;
  }
};

inline std::vector<float>& scratch(int64_t size) {
  thread_local std::vector<float> buffer;
  if (static_cast<int64_t>(buffer.size()) < size) buffer.resize(size);
  return buffer;
}

// Frames [begin, begin + count) of one signal, through the activation, time-major.
inline void stage(const Prologue& prologue, const Signal& s, int64_t batch, int64_t begin,
                  int64_t count, float* out) {
  const float* x = s.x + batch * s.batch_stride + begin * s.frame_stride;
  table().prologue(prologue, x, s.channel_stride, s.frame_stride, count, s.channels, out);
}

// The signal as a dense time-major array: itself, or a copy kept in `copy`.
inline const float* dense(const Signal& s, std::vector<float>& copy) {
  if (s.packed()) return s.x;
  copy.resize(s.batch * s.frames * s.channels);
  for (int64_t b = 0; b < s.batch; ++b) {
    stage({Activation::kNone}, s, b, 0, s.frames, copy.data() + b * s.frames * s.channels);
  }
  return copy.data();
}

// Points a prologue to snake's parameters (beta: alpha where null), which it lays out in `columns`.
void set_snake(Prologue& p, const float* alpha, const float* beta, int64_t channels,
               std::vector<float>& columns);

// An activation's parameters from the arguments of its op.
struct Parameters {
  std::vector<float> columns;
  Prologue prologue;
  Parameters(int64_t kind, double slope, const MaybeTensor& alpha, const MaybeTensor& beta,
             int64_t channels);
  Parameters(const Parameters&) = delete;  // the prologue points into it
};

// Whether a convolution of so many channels a group rounds its operands, by its op's `precision`
// argument (fastcodec/ops/conv1d.py: PRECISIONS and operands).
inline bool is_medium(int64_t precision, int64_t channels_in, int64_t channels_out) {
  STD_TORCH_CHECK(precision >= 0 && precision <= 2, "fastcodec: precision must be 0, 1 or 2, got ",
                  precision);
  return precision == 2 && channels_in % 2 == 0 && channels_out > 2;
}

// Runs p over all of s, through the activation: the convolution behind three ops.
void run_conv(Conv p, const Signal& s, const Prologue& prologue);

// Every query of p over its span, for all heads.
void run_attention(const Attention& p, int64_t batch);

// Cosine and sine of (position + t) * frequency[i], [frames][pairs][2].
void rotate(const float* frequency, int64_t pairs, int64_t position, int64_t frames, float* turns);

// Every row of x [frames][channels] normalised.
void normalise_rows(const float* x, int64_t frames, int64_t channels, const float* weight,
                    const float* bias, float epsilon, float* out);

// The ops, under the names and with the arguments of their schemas.
Tensor conv1d_pack(Tensor weight, int64_t groups, int64_t precision);
Tensor conv1d(Tensor x, Tensor weight, MaybeTensor bias, MaybeTensor residual, MaybeTensor alpha,
              MaybeTensor beta, MaybeTensor packed, int64_t stride, int64_t dilation,
              int64_t groups, int64_t activation, double slope, int64_t precision);
Tensor conv_transpose1d_pack(Tensor weight, int64_t stride, int64_t groups, int64_t precision);
Tensor conv_transpose1d(Tensor x, Tensor weight, MaybeTensor bias, MaybeTensor alpha,
                        MaybeTensor beta, MaybeTensor packed, int64_t stride, int64_t groups,
                        int64_t activation, double slope, int64_t precision);
Tensor activation(Tensor x, int64_t kind, double slope);
Tensor attention(Tensor q, Tensor k, Tensor v, Tensor first, Tensor last, int64_t heads,
                 double scale);
Tensor snake(Tensor x, Tensor alpha, MaybeTensor beta);
Tensor lstm_pack(Tensor weight_ih, Tensor weight_hh, int64_t precision);
std::tuple<Tensor, Tensor, Tensor> lstm(Tensor x, Tensor h, Tensor c, Tensor weight_ih,
                                        Tensor weight_hh, Tensor bias_ih, Tensor bias_hh,
                                        MaybeTensor packed, bool skip, int64_t precision);
Tensor rvq_encode_pack(Tensor codebooks);
Tensor rvq_encode(Tensor x, Tensor codebooks, MaybeTensor packed);
Tensor rvq_decode(Tensor codes, Tensor codebooks);
Tensor group_norm(Tensor x, Tensor weight, Tensor bias, double epsilon);
Tensor layer_norm(Tensor x, Tensor weight, Tensor bias, double epsilon);
Tensor rotations(Tensor frequency, int64_t position, int64_t frames);
Tensor push_plan(Tensor x, Tensor steps, Tensor carried, Tensor counts);
Tensor rvq_encode_factorised_pack(Tensor codebooks);
Tensor rvq_encode_factorised(Tensor x, Tensor in_weight, Tensor in_bias, Tensor codebooks,
                             Tensor out_weight, Tensor out_bias, MaybeTensor packed);
Tensor rvq_decode_factorised(Tensor codes, Tensor codebooks, Tensor out_weight, Tensor out_bias);
void snake_out(Tensor x, Tensor alpha, MaybeTensor beta, Tensor out);
std::tuple<Tensor, Tensor, Tensor> snake_backward(Tensor grad, Tensor x, Tensor alpha,
                                                  MaybeTensor beta);

}  // namespace fastcodec
