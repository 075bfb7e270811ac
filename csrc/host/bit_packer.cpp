#include "bit_packer.h"

#include <stdexcept>

namespace fastcodec {

std::string PackBits(const int64_t* values, size_t count, int width) {
  std::string bytes;
  bytes.reserve(PackedBytes(count, width));
  uint32_t pending = 0;
  int pending_bits = 0;
  for (size_t i = 0; i < count; ++i) {
    if (values[i] < 0 || values[i] >> width != 0) {
      throw std::invalid_argument("pack_bits: values must be in [0, " +
                                  std::to_string((1 << width) - 1) + "] for width " +
                                  std::to_string(width) + ", got " + std::to_string(values[i]));
    }
    pending |= static_cast<uint32_t>(values[i]) << pending_bits;
    for (pending_bits += width; pending_bits >= 8; pending_bits -= 8) {
      bytes.push_back(static_cast<char>(pending & 0xff));
      pending >>= 8;
    }
  }
  if (pending_bits > 0) bytes.push_back(static_cast<char>(pending));
  return bytes;
}

void UnpackBits(const uint8_t* bytes, size_t count, int width, int64_t* values) {
  const uint32_t mask = (1u << width) - 1;
  uint32_t pending = 0;
  int pending_bits = 0;
  for (size_t i = 0; i < count; ++i) {
    for (; pending_bits < width; pending_bits += 8) {
      pending |= static_cast<uint32_t>(*bytes++) << pending_bits;
    }
    values[i] = pending & mask;
    pending >>= width;
    pending_bits -= width;
  }
}

}  // namespace fastcodec
