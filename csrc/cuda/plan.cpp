#include "cuda/plan.h"

#include <algorithm>
#include <iterator>

#include "cuda/lstm.cuh"
#include "cuda/rvq_encode.cuh"

namespace fastcodec {
namespace {

constexpr int64_t kMostBlocks = 1 << 16;
constexpr int kWarpWords = 16;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Eight clusters of 16 fill a GPU of 132 processors; beyond, a cluster has more rows.
int lstm_rows(int64_t batch) { return batch <= 8 ? 1 : batch <= 16 ? 2 : 4; }

}  // namespace

int64_t most_shared_bytes(int capability) {
  switch (capability) {
    case 80:
    case 87:
      return 163 * 1024;
    case 86:
    case 89:
    case 120:
    case 121:
      return 99 * 1024;
    default:
      return capability >= 90 ? 227 * 1024 : 48 * 1024;
  }
}

bool plan_rvq_encode(int64_t rows, int64_t words, int64_t features, int capability, RvqPlan* plan) {
  constexpr int64_t kMostWords = 1 << 30;  // with their features, indices of a key
  if (words < 1 || words > kMostWords || features < 1 || features > 4096) return false;
  RvqPlan p{};
  // Two words a phase of a 16-byte load: half of the banks apart.
  const int64_t sixteens = ceil_div(features, 16);
  p.stride = static_cast<int>(16 * (sixteens % 2 == 0 ? sixteens + 1 : sixteens));
  const bool clusters = capability / 10 == 9 || capability / 10 == 10;
  p.launch.cluster = clusters && words >= 8 * kWarpWords ? 8 : 1;
  // 16 clusters of 8 fill a GPU of 132 processors: the fewest rows that keep to one wave.
  const int64_t wave = p.launch.cluster == 8 ? 16 : 128;
  p.rows = static_cast<int>(std::clamp<int64_t>(16 * ceil_div(ceil_div(rows, wave), 16), 16, 64));
  const int64_t slice = ceil_div(words, p.launch.cluster);
  const int64_t most = most_shared_bytes(capability);
  for (; p.rows >= 16; p.rows -= 16) {
    p.words = 128;
    while (p.words > kWarpWords && p.words / 2 >= slice) p.words /= 2;
    for (; p.words >= kWarpWords; p.words /= 2) {
      p.launch.shared_bytes = rvq_encode_shared(p.rows, p.words, p.stride).bytes;
      // Small blocks, or fewer rows: fewer rows read the codebook more often, small blocks do not.
      const bool wanted = p.words >= 64 || p.words >= slice || p.rows == 16;
      if (p.launch.shared_bytes <= most && wanted) {
        p.launch.threads = 32 * p.words / kWarpWords;
        p.launch.blocks = ceil_div(rows, p.rows) * p.launch.cluster;
        *plan = p;
        return true;
      }
    }
  }
  return false;
}

LstmPlan plan_lstm_steps(int64_t batch, int64_t hidden) {
  LstmPlan p{};
  p.rows = lstm_rows(batch), p.units = 8;
  p.launch = {ceil_div(hidden, p.units) * ceil_div(batch, p.rows), 16 * p.units, 1, 0};
  return p;
}

bool plan_lstm(int64_t batch, int64_t hidden, int capability, LstmPlan* plan) {
  if (hidden < 1 || batch < 1 || hidden > 1 << 20) return false;
  LstmPlan p{};
  p.rows = lstm_rows(batch);
  const int64_t row_blocks = ceil_div(batch, p.rows);
  const bool clusters = capability / 10 == 9 || capability / 10 == 10;
  int cluster = 1;  // the fewest blocks whose units fit
  while (cluster < 16 && ceil_div(hidden, cluster) > kLstmUnits) cluster *= 2;
  const int64_t units = ceil_div(hidden, cluster);
  p.persistent = units <= kLstmUnits && (cluster == 1 || clusters);
  if (p.persistent != 0) {
    p.units = static_cast<int>(units);
    p.launch = {row_blocks * cluster, static_cast<int>(ceil_div(units * 16, 32) * 32), cluster,
                lstm_shared_bytes(hidden, p.rows, static_cast<int>(units))};
    if (p.launch.shared_bytes <= most_shared_bytes(capability)) {
      *plan = p;
      return true;
    }
  }
  *plan = plan_lstm_steps(batch, hidden);
  return true;
}

SnakePlan plan_snake(int64_t count, int64_t channels, int64_t inner, bool aligned) {
  constexpr int kThreads = 256;
  constexpr int64_t kEach = 4;  // vectors of a thread in flight
  const int64_t run = inner > 1 ? inner : channels;
  const int vector = aligned && run % 4 == 0 ? 4 : 1;
  const int64_t blocks = ceil_div(count, kThreads * vector * kEach);
  return {{std::min(blocks, kMostBlocks), kThreads, 1, 0}, vector};
}

}  // namespace fastcodec

#define FASTCODEC_FOR_TESTS extern "C" __attribute__((visibility("default")))

// blocks, threads, cluster, shared bytes, then the plan's other fields in their order; 0: no plan.
FASTCODEC_FOR_TESTS int fastcodec_rvq_encode_launch(int64_t rows, int64_t words, int64_t features,
                                                    int capability, int64_t* out) {
  fastcodec::RvqPlan p{};
  if (!fastcodec::plan_rvq_encode(rows, words, features, capability, &p)) return 0;
  const auto& l = p.launch;
  const int64_t fields[] = {l.blocks, l.threads, l.cluster, l.shared_bytes,
                            p.rows,   p.words,   p.stride};
  std::copy(std::begin(fields), std::end(fields), out);
  return 1;
}

FASTCODEC_FOR_TESTS int fastcodec_lstm_launch(int64_t batch, int64_t hidden, int capability,
                                              int64_t* out) {
  fastcodec::LstmPlan p{};
  if (!fastcodec::plan_lstm(batch, hidden, capability, &p)) return 0;
  const auto& l = p.launch;
  const int64_t fields[] = {l.blocks,     l.threads, l.cluster, l.shared_bytes,
                            p.persistent, p.rows,    p.units};
  std::copy(std::begin(fields), std::end(fields), out);
  return 1;
}

FASTCODEC_FOR_TESTS int fastcodec_snake_launch(int64_t count, int64_t channels, int64_t inner,
                                               int aligned, int64_t* out) {
  const auto p = fastcodec::plan_snake(count, channels, inner, aligned != 0);
  const int64_t fields[] = {p.launch.blocks, p.launch.threads, p.launch.cluster,
                            p.launch.shared_bytes, p.vector};
  std::copy(std::begin(fields), std::end(fields), out);
  return 1;
}
