#include "packed_linear.h"

#include <algorithm>

namespace fastcodec {
namespace {

// Inputs added up before they go into the total: a quarter of the rounding error of one long sum.
constexpr int64_t kBlock = 16;

// y[o] += weight[i][o] x[i] for one panel of outputs.
FASTCODEC_CLONES
void AddPanel(const float* weight, const float* x, int64_t inputs, float* y) {
  for (int64_t begin = 0; begin < inputs; begin += kBlock) {
    float sum[kPanel] = {};
    for (int64_t i = begin; i < std::min(begin + kBlock, inputs); ++i, weight += kPanel) {
      for (int64_t o = 0; o < kPanel; ++o) sum[o] += weight[o] * x[i];
    }
    for (int64_t o = 0; o < kPanel; ++o) y[o] += sum[o];
  }
}

}  // namespace

FASTCODEC_CLONES
void AddScaled(float a, const float* x, int64_t n, float* y) {
  for (int64_t begin = 0; begin < n; begin += kLanes) {
    float sum[kLanes];
    for (int64_t i = 0; i < kLanes; ++i) sum[i] = y[begin + i] + a * x[begin + i];
    for (int64_t i = 0; i < kLanes; ++i) y[begin + i] = sum[i];
  }
}

PackedLinear::PackedLinear(const float* weight, const float* bias, int64_t outputs, int64_t inputs)
    : inputs_(inputs), bias_(PaddedTo(kPanel, outputs)), weight_(inputs * bias_.size()) {
  std::copy_n(bias, outputs, bias_.begin());
  for (int64_t o = 0; o < outputs; ++o) {
    float* panel = &weight_[o / kPanel * kPanel * inputs + o % kPanel];
    for (int64_t i = 0; i < inputs; ++i) panel[i * kPanel] = weight[o * inputs + i];
  }
}

void PackedLinear::Apply(const float* x, float* y) const {
  std::copy(bias_.begin(), bias_.end(), y);
  for (size_t begin = 0; begin < bias_.size(); begin += kPanel) {
    AddPanel(&weight_[begin * inputs_], x, inputs_, y + begin);
  }
}

}  // namespace fastcodec
