// EnCodec's arithmetic coder (facebookresearch/encodec encodec/quantization/ac.py@0e2d0aed).
//
// Upstream computes the bounds in float64. A cumulative count is below 2^25 and the interval's
// width below 2^25, so those products are exact and plain integers give the same bounds on any
// machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace fastcodec {

// A probability is a count out of 2^24.
constexpr int kTotalRangeBits = 24;
constexpr int32_t kTotalRange = 1 << kTotalRangeBits;

// The stream is truncated or no encoder can have written it.
struct StreamError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// [low, high] is the interval that is still open, in a window of max_bit + 1 bits.
struct Interval {
  uint64_t low = 0;
  uint64_t high = 0;
  int max_bit = -1;

  uint64_t width() const { return high - low + 1; }
  bool narrow() const { return width() < kTotalRange; }
  // Whether another bit fits; only a sequence that straddles one boundary 37 times over needs more.
  bool can_widen() const { return max_bit < 61; }
  void Widen();
  // The first and last value that belong to the counts [begin, end).
  uint64_t First(uint64_t begin) const;
  uint64_t Last(uint64_t end) const;
};

class ArithmeticEncoder {
 public:
  // Codes `symbol` by `cdf`: int32 [size] cumulative counts, increasing, the last one <= 2^24.
  void Push(int64_t symbol, const int32_t* cdf, int64_t size);
  // The whole stream, padded with zero bits to a byte; the coder starts afresh.
  std::string Finish();

 private:
  void PutBit(uint64_t bit);

  Interval interval_;
  std::string bytes_;
  unsigned pending_ = 0;
  int pending_bits_ = 0;
};

class ArithmeticDecoder {
 public:
  explicit ArithmeticDecoder(std::string bytes) : bytes_(std::move(bytes)) {}
  // The next symbol; throws StreamError at the end of the bytes or in a gap between the symbols.
  int64_t Pull(const int32_t* cdf, int64_t size);
  // Bytes of which at least one bit was read: the length of the segment once all is pulled.
  size_t bytes_read() const { return (bits_read_ + 7) / 8; }

 private:
  uint64_t GetBit();

  Interval interval_;
  std::string bytes_;
  uint64_t current_ = 0;
  size_t bits_read_ = 0;
};

}  // namespace fastcodec
