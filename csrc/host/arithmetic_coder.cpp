#include "arithmetic_coder.h"

#include <algorithm>

namespace fastcodec {

void Interval::Widen() {
  low = 2 * low;
  high = 2 * high + 1;
  ++max_bit;
}

uint64_t Interval::First(uint64_t begin) const {
  return low + ((begin * width() + kTotalRange - 1) >> kTotalRangeBits);
}

uint64_t Interval::Last(uint64_t end) const {
  return low + (((end - 1) * width()) >> kTotalRangeBits);
}

void ArithmeticEncoder::Push(int64_t symbol, const int32_t* cdf, int64_t size) {
  if (symbol < 0 || symbol >= size) {
    throw std::invalid_argument("ArithmeticEncoder: symbols must be in [0, " +
                                std::to_string(size - 1) + "], got " + std::to_string(symbol));
  }
  const int32_t begin = symbol == 0 ? 0 : cdf[symbol - 1];
  const int32_t end = cdf[symbol];
  if (begin < 0 || end < begin + 2 || end > kTotalRange) {
    throw std::invalid_argument(
        "ArithmeticEncoder: a symbol needs two or more of the 2^24 counts, got [" +
        std::to_string(begin) + ", " + std::to_string(end) + ")");
  }
  while (interval_.narrow()) {
    if (!interval_.can_widen()) {
      throw std::invalid_argument("ArithmeticEncoder: carry longer than 61 bits, not encodable");
    }
    interval_.Widen();
  }
  const uint64_t first = interval_.First(begin);
  interval_.high = interval_.Last(end);
  interval_.low = first;
  for (; interval_.max_bit >= 0; --interval_.max_bit) {
    const uint64_t top = uint64_t{1} << interval_.max_bit;
    if ((interval_.low ^ interval_.high) & top) break;
    PutBit((interval_.low & top) != 0);
    interval_.low &= ~top;
    interval_.high &= ~top;
  }
}

std::string ArithmeticEncoder::Finish() {
  for (int bit = interval_.max_bit; bit >= 0; --bit) PutBit((interval_.low >> bit) & 1);
  if (pending_bits_ > 0) bytes_.push_back(static_cast<char>(pending_));
  std::string bytes = std::move(bytes_);
  *this = ArithmeticEncoder();
  return bytes;
}

void ArithmeticEncoder::PutBit(uint64_t bit) {
  pending_ |= static_cast<unsigned>(bit) << pending_bits_;
  if (++pending_bits_ == 8) {
    bytes_.push_back(static_cast<char>(pending_));
    pending_ = 0;
    pending_bits_ = 0;
  }
}

int64_t ArithmeticDecoder::Pull(const int32_t* cdf, int64_t size) {
  while (interval_.narrow()) {
    if (!interval_.can_widen()) throw StreamError("arithmetic-coded stream: impossible bits");
    interval_.Widen();
    current_ = 2 * current_ + GetBit();
  }
  // The first symbol whose last value is not below the current one.
  int64_t low = 0;
  int64_t high = size - 1;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (current_ > interval_.Last(cdf[middle])) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  const int32_t begin = low == 0 ? 0 : cdf[low - 1];
  const int32_t end = std::min(cdf[low], kTotalRange);
  const uint64_t first = interval_.First(begin);
  const uint64_t last = interval_.Last(end);
  if (current_ < first || current_ > last) {
    throw StreamError("arithmetic-coded stream: bits that belong to no symbol");
  }
  interval_.low = first;
  interval_.high = last;
  for (; interval_.max_bit >= 0; --interval_.max_bit) {
    const uint64_t top = uint64_t{1} << interval_.max_bit;
    if ((interval_.low ^ interval_.high) & top) break;
    interval_.low &= ~top;
    interval_.high &= ~top;
    current_ &= ~top;
  }
  return low;
}

uint64_t ArithmeticDecoder::GetBit() {
  if (bits_read_ == 8 * bytes_.size()) {
    throw StreamError("arithmetic-coded stream: ends too early, after " +
                      std::to_string(bytes_.size()) + " bytes");
  }
  const auto byte = static_cast<uint8_t>(bytes_[bits_read_ / 8]);
  return (byte >> (bits_read_++ % 8)) & 1;
}

}  // namespace fastcodec
