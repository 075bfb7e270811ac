// Steps that need each other's results, shared by threads that may be called away.
//
// A step is `blocks` independent blocks. Each thread has its own share of them (and so keeps their
// weights in its cache), but takes over another's when it would have to wait: a thread that the
// system has put aside holds the others up for the block it was in, not for its whole share.
#pragma once

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

namespace fastcodec {

class Relay {
 public:
  Relay(int64_t steps, int64_t blocks, int64_t shares)
      : steps_(steps), blocks_(blocks), shares_(std::min(shares, blocks)) {}

  int64_t count() const { return static_cast<int64_t>(shares_.size()); }

  // Runs f(step, block) for the blocks of share `own`, and of others where they lag, until all
  // steps are done or in other threads' hands. One call alone does all the work.
  template <typename F>
  void run(int64_t own, const F& f) {
    for (int idle = 0;;) {
      bool worked = false, left = false;
      for (int64_t i = 0; i < count() && !worked; ++i) {
        const int64_t share = (own + i) % count();
        const int64_t first = blocks_ * share / count();
        const int64_t size = blocks_ * (share + 1) / count() - first;
        int64_t at = shares_[share].next.load(std::memory_order_relaxed);
        const int64_t step = at / size;
        if (step >= steps_) continue;
        left = true;
        // Every block of the steps before must be done; acquire makes their results visible.
        if (done_.load(std::memory_order_acquire) < step * blocks_) continue;
        if (!shares_[share].next.compare_exchange_strong(at, at + 1, std::memory_order_relaxed)) {
          continue;
        }
        f(step, first + at % size);
        done_.fetch_add(1, std::memory_order_release);
        worked = true;
      }
      if (worked) {
        idle = 0;
      } else if (!left) {
        return;
      } else if (++idle > kSpins) {
        sched_yield();
      } else {
        __builtin_ia32_pause();
      }
    }
  }

 private:
  static constexpr int kSpins = 200;  // about 10 us

  struct alignas(64) Share {
    std::atomic<int64_t> next{0};  // step * size + block within the share
  };

  const int64_t steps_, blocks_;
  alignas(64) std::atomic<int64_t> done_{0};
  std::vector<Share> shares_;
};

}  // namespace fastcodec
