// What the kernels ask of the GPU beyond CUDA C++ itself: clusters, asynchronous copies, tensor
// cores, the launch. tests/kernels/emulated/cuda/device.cuh is the same for a CPU.
#pragma once

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/plan.h"

namespace fastcodec {

// The block's dynamic shared memory.
__device__ __forceinline__ char* shared_memory() {
  extern __shared__ float4 fastcodec_shared[];
  return reinterpret_cast<char*>(fastcodec_shared);
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
__device__ __forceinline__ int cluster_rank() {
  return static_cast<int>(cooperative_groups::this_cluster().block_rank());
}
// All threads of the cluster; what was written to shared memory before is seen after.
__device__ __forceinline__ void cluster_wait() { cooperative_groups::this_cluster().sync(); }
// What `mine` is in the block of that rank.
template <typename T>
__device__ __forceinline__ T* in_block(T* mine, int rank) {
  return cooperative_groups::this_cluster().map_shared_rank(mine, rank);
}
#else  // compiled, never launched: plan.h gives no clusters there
__device__ __forceinline__ int cluster_rank() { return 0; }
__device__ __forceinline__ void cluster_wait() {}
template <typename T>
__device__ __forceinline__ T* in_block(T* mine, int) {
  return mine;
}
#endif

// 16 bytes, both addresses aligned to as many.
__device__ __forceinline__ void copy_async(float* to, const float* from) {
  const uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
}
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

// sums[16][8] += a[16][8] b[8][8] by one warp, operands cut off to TF32. With g = lane / 4 and
// q = lane % 4, a lane gives a: (g, q), (g + 8, q), (g, q + 4), (g + 8, q + 4), b: (q, g), (q + 4,
// g), and has sums: (g, 2 q), (g, 2 q + 1), (g + 8, 2 q), (g + 8, 2 q + 1).
__device__ __forceinline__ void multiply_tf32(float (&sums)[4], const float (&a)[4],
                                              const float (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
        "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

namespace detail {

struct Configuration {
  cudaLaunchConfig_t config = {};
  cudaLaunchAttribute cluster = {};
  cudaError_t error = cudaSuccess;

  Configuration(const Launch& plan, const void* function, cudaStream_t stream) {
    if (plan.shared_bytes > 48 * 1024) {
      error = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(plan.shared_bytes));
    }
    if (error == cudaSuccess && plan.cluster > 8) {
      error = cudaFuncSetAttribute(function, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    }
    config.gridDim = dim3(static_cast<unsigned>(plan.blocks));
    config.blockDim = dim3(static_cast<unsigned>(plan.threads));
    config.dynamicSmemBytes = static_cast<size_t>(plan.shared_bytes);
    config.stream = stream;
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = static_cast<unsigned>(plan.cluster);
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    config.attrs = &cluster;
    config.numAttrs = plan.cluster > 1 ? 1 : 0;
  }
  Configuration(const Configuration&) = delete;  // config points into it
};

}  // namespace detail

// Whether the GPU, or the part of it that is ours, can run such a cluster at all; 16 blocks are
// more than every GPU promises. Starts nothing, so it can be captured.
template <typename Kernel>
bool can_run(const Launch& plan, Kernel kernel) {
  const void* function = reinterpret_cast<const void*>(kernel);
  const detail::Configuration c(plan, function, nullptr);
  int clusters = 0;
  const cudaError_t error = c.error != cudaSuccess
                                ? c.error
                                : cudaOccupancyMaxActiveClusters(&clusters, function, &c.config);
  if (error != cudaSuccess) cudaGetLastError();  // it is not to be found by somebody else
  return error == cudaSuccess && clusters > 0;
}

// The error of the launch, cudaSuccess where there is none. None of its calls waits or touches a
// stream, so it can be captured.
template <typename... Parameters, typename... Arguments>
cudaError_t launch(const Launch& plan, cudaStream_t stream, void (*kernel)(Parameters...),
                   Arguments... arguments) {
  const detail::Configuration c(plan, reinterpret_cast<const void*>(kernel), stream);
  if (c.error != cudaSuccess) return c.error;
  return cudaLaunchKernelEx(&c.config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace fastcodec
