// How the kernels are launched: from sizes and the GPU's generation alone, without a call of CUDA.
// Nothing here changes an order of summation.
#pragma once

#include <cstdint>

namespace fastcodec {

struct Launch {
  int64_t blocks;
  int threads;
  int cluster;  // blocks that share their memory; 1: none
  int64_t shared_bytes;
};

// `capability`: 10 * major + minor. Bytes that a block may have.
int64_t most_shared_bytes(int capability);

struct RvqPlan {
  Launch launch;
  int rows;    // of a cluster: a multiple of 16, at most 64
  int words;   // of a block of the codebook: 16 a warp
  int stride;  // floats between words, and between rows
};

// False where even the smallest block of the codebook does not fit.
bool plan_rvq_encode(int64_t rows, int64_t words, int64_t features, int capability, RvqPlan* plan);

struct LstmPlan {
  Launch launch;  // of the recurrence: of one frame where `persistent` is 0, else of all
  int persistent;
  int rows;   // of the batch that a cluster has, or a block
  int units;  // hidden ones of a block
};

bool plan_lstm(int64_t batch, int64_t hidden, int capability, LstmPlan* plan);
// The one without clusters.
LstmPlan plan_lstm_steps(int64_t batch, int64_t hidden);

struct SnakePlan {
  Launch launch;
  int vector;  // floats of a load
};

// `inner`: elements of one channel side by side. `aligned`: all of memory to 16 bytes.
SnakePlan plan_snake(int64_t count, int64_t channels, int64_t inner, bool aligned);

}  // namespace fastcodec
