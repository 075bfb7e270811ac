// What the launchers' headers need of the CUDA runtime, for the emulation.
#pragma once

using cudaError_t = int;
using cudaStream_t = void*;
constexpr cudaError_t cudaSuccess = 0;

#define __host__
#define __device__
