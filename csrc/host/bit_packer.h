// Fixed-width integers as a stream of bits, least significant bit first (EnCodec's `.ecdc` body).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fastcodec {

constexpr int kMaxBitWidth = 16;

inline size_t PackedBytes(size_t count, int width) { return (count * width + 7) / 8; }

// The values one after the other, `width` bits each, zero bits up to the last whole byte.
std::string PackBits(const int64_t* values, size_t count, int width);

// Reads `count` values from PackedBytes(count, width) bytes.
void UnpackBits(const uint8_t* bytes, size_t count, int width, int64_t* values);

}  // namespace fastcodec
