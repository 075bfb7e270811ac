// csrc/cuda/device.cuh for a CPU: the kernels' own source, compiled as C++ and run thread by
// thread.
//
// Every CUDA thread is a fiber that runs until it waits; the blocks of a cluster run together. It
// finds what a GPU might hide: a barrier or a shuffle that some threads miss (the run stops with a
// message), shared memory that is read before it is written (it starts as NaN), is written past its
// end, or is read while asynchronous copies into it are under way (they are done when they are
// waited for), and, by running the threads in both orders, most races.
#pragma once

#include <cuda_runtime_api.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "cuda/plan.h"

#define __global__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct Index {
  unsigned x;
};

namespace emulated {

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "emulated GPU: %s\n", what);
  std::abort();
}

struct Barrier {
  int expected = 0, arrived = 0, generation = 0;
};

struct Warp {
  Barrier barrier;
  double slots[32][6];
};

struct Block {
  Index index;
  Barrier barrier;
  std::vector<Warp> warps;
  std::vector<char> memory;
  char* shared;
};

struct Copy {
  float* to;
  const float* from;
};

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  Index index;
  Block* block;
  std::vector<Copy> copies;
  bool done = false;
};

inline Thread* now = nullptr;
inline ucontext_t scheduler;
inline Index grid, block_size;
inline std::vector<Block> blocks;  // of the cluster
inline Barrier cluster_barrier;
inline bool progress, backwards = false;
inline std::function<void()> body;

inline void wait(Barrier& b) {
  const int before = b.generation;
  if (++b.arrived == b.expected) {
    b.arrived = 0, ++b.generation, progress = true;
    return;
  }
  while (b.generation == before) swapcontext(&now->context, &scheduler);
}

inline Warp& warp() { return now->block->warps[now->index.x / 32]; }

inline void enter() {
  body();
  if (!now->copies.empty()) fail("copies that nobody waited for");
  now->done = progress = true;
  swapcontext(&now->context, &scheduler);
}

constexpr int kStack = 1 << 16, kGuard = 64;
constexpr char kCanary = 0x5a;

inline void run_cluster(const fastcodec::Launch& plan, int64_t first) {
  blocks.assign(plan.cluster, Block());
  cluster_barrier = {plan.cluster * plan.threads};
  std::vector<Thread> threads(plan.cluster * plan.threads);
  for (int b = 0; b < plan.cluster; ++b) {
    Block& block = blocks[b];
    block.index.x = static_cast<unsigned>(first + b);
    block.barrier.expected = plan.threads;
    block.warps.resize((plan.threads + 31) / 32);
    for (Warp& w : block.warps) w.barrier.expected = 32;
    block.memory.assign(plan.shared_bytes + 2 * kGuard, static_cast<char>(0xff));
    block.shared = block.memory.data() + kGuard -
                   reinterpret_cast<uintptr_t>(block.memory.data() + kGuard) % 16;
    std::memset(block.memory.data(), kCanary, block.shared - block.memory.data());
    std::memset(block.shared + plan.shared_bytes, kCanary, kGuard);
    for (int t = 0; t < plan.threads; ++t) {
      Thread& thread = threads[b * plan.threads + t];
      thread.index.x = t, thread.block = &block;
      thread.stack.reset(new char[kStack]);
      getcontext(&thread.context);
      thread.context.uc_stack.ss_sp = thread.stack.get();
      thread.context.uc_stack.ss_size = kStack;
      makecontext(&thread.context, enter, 0);
    }
  }
  for (size_t left = threads.size(); left > 0;) {
    progress = false;
    for (size_t i = 0; i < threads.size(); ++i) {
      now = &threads[backwards ? threads.size() - 1 - i : i];
      if (now->done) continue;
      swapcontext(&scheduler, &now->context);
      left -= now->done;
    }
    if (!progress) fail("all threads wait for each other");
  }
  for (const Block& block : blocks) {
    for (int i = 0; i < kGuard; ++i) {
      if (block.shared[plan.shared_bytes + i] != kCanary) fail("shared memory: past the end");
    }
    for (const char* p = block.memory.data(); p < block.shared; ++p) {
      if (*p != kCanary) fail("shared memory: before the start");
    }
  }
}

}  // namespace emulated

#define threadIdx (emulated::now->index)
#define blockIdx (emulated::now->block->index)
#define gridDim (emulated::grid)
#define blockDim (emulated::block_size)

inline void __syncthreads() { emulated::wait(emulated::now->block->barrier); }
inline void __syncwarp() { emulated::wait(emulated::warp().barrier); }

template <typename T>
T shuffled(T value, int lane) {
  emulated::Warp& warp = emulated::warp();
  std::memcpy(warp.slots[threadIdx.x % 32], &value, sizeof value);
  __syncwarp();
  std::memcpy(&value, warp.slots[lane % 32], sizeof value);
  __syncwarp();
  return value;
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int lanes) {
  return shuffled(value, static_cast<int>(threadIdx.x % 32) ^ lanes);
}
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return shuffled(value, lane);
}

inline int atomicAdd(int* to, int value) {
  const int before = *to;
  *to += value;
  return before;
}
inline unsigned long long atomicMax(unsigned long long* to, unsigned long long value) {
  const unsigned long long before = *to;
  *to = before > value ? before : value;
  return before;
}

inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

namespace fastcodec {

inline char* shared_memory() { return emulated::now->block->shared; }
inline int cluster_rank() {
  return static_cast<int>(emulated::now->block - emulated::blocks.data());
}
inline void cluster_wait() { emulated::wait(emulated::cluster_barrier); }
template <typename T>
T* in_block(T* mine, int rank) {
  if (rank < 0 || rank >= static_cast<int>(emulated::blocks.size())) emulated::fail("no such rank");
  return reinterpret_cast<T*>(emulated::blocks[rank].shared +
                              (reinterpret_cast<char*>(mine) - shared_memory()));
}

inline void copy_async(float* to, const float* from) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16 != 0) {
    emulated::fail("copy_async: not aligned");
  }
  emulated::now->copies.push_back({to, from});
}
inline void wait_for_copies() {
  for (const emulated::Copy& c : emulated::now->copies) std::memcpy(c.to, c.from, 16);
  emulated::now->copies.clear();
}

inline double cut_to_tf32(float x) { return __uint_as_float(__float_as_uint(x) & 0xffffe000u); }

inline void multiply_tf32(float (&sums)[4], const float (&a)[4], const float (&b)[2]) {
  emulated::Warp& warp = emulated::warp();
  const int lane = static_cast<int>(threadIdx.x % 32), g = lane / 4, q = lane % 4;
  for (int i = 0; i < 4; ++i) warp.slots[lane][i] = cut_to_tf32(a[i]);
  for (int i = 0; i < 2; ++i) warp.slots[lane][4 + i] = cut_to_tf32(b[i]);
  __syncwarp();
  for (int i = 0; i < 4; ++i) {
    const int column = 2 * q + i % 2;
    double sum = sums[i];
    for (int k = 0; k < 8; ++k) {
      sum +=
          warp.slots[4 * g + k % 4][i / 2 + k / 4 * 2] * warp.slots[4 * column + k % 4][4 + k / 4];
    }
    sums[i] = static_cast<float>(sum);
  }
  __syncwarp();
}

template <typename Kernel>
bool can_run(const Launch&, Kernel) {
  return true;
}

template <typename... Parameters, typename... Arguments>
cudaError_t launch(const Launch& plan, cudaStream_t, void (*kernel)(Parameters...),
                   Arguments... arguments) {
  emulated::grid.x = static_cast<unsigned>(plan.blocks);
  emulated::block_size.x = static_cast<unsigned>(plan.threads);
  emulated::body = [=] { kernel(static_cast<Parameters>(arguments)...); };
  if (plan.blocks % plan.cluster != 0) emulated::fail("a cluster that is not full");
  if (plan.threads % 32 != 0) emulated::fail("a warp that is not full");
  for (int64_t b = 0; b < plan.blocks; b += plan.cluster) emulated::run_cluster(plan, b);
  return cudaSuccess;
}

}  // namespace fastcodec
