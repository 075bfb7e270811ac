// push_plan: a push through a whole run of layers in one call, for streams in steady state.
//
// A plan (fastcodec/layers/plan.py) is a list of steps for a machine with a stack of signals. Each
// step that needs frames of earlier pushes has a place for them in `carried` and a row of `counts`.
// The arithmetic is that of the layers' own ops: run_conv over the carried frames and the new ones.
// A result is written behind room for what the next layer carries, so that both are one array
// without a copy; and in memory that is used again, as fresh pages would cost more than arithmetic.
#include <cstring>
#include <memory>

#include "glue.h"

namespace fastcodec {
namespace {

enum Kind : int64_t {
  kInput,
  kConv,
  kConvTranspose,
  kActivate,
  kBranch,
  kHold,
  kLayerNorm,
  kAttend,
  kAdd
};

struct Step {  // a row of `steps`; the fields are those of fastcodec/layers/plan.py
  int64_t kind;
  int64_t offset, capacity;  // place in `carried`, in floats; its size in frames
  int64_t headroom;          // frames to leave free before the result
  int64_t held;              // the hold step whose frames are added, or 0
  int64_t channels, columns, taps, stride, dilation, groups, margin, activation, slope, precision;
  const float *weight, *bias, *alpha;  // kept alive by the plan object
};
constexpr int64_t kFields = sizeof(Step) / sizeof(int64_t);

// A row of `counts`: of a convolution, of a transposed one, of attention.
struct Counts {
  int64_t frames;  // carried ones
  int64_t first;   // where the next window begins; frames received; frames received
  int64_t second;  // whether there was a window; samples emitted; the oldest frame's place
};

// A signal [batch][headroom + frames][channels].
struct Value {
  std::shared_ptr<std::vector<float>> memory;
  int64_t headroom = 0, frames = 0, channels = 0;
  float* at(int64_t item) const {
    return memory->data() + (item * (headroom + frames) + headroom) * channels;
  }
};

// Memory that nobody uses any more, or new; one thread's.
std::shared_ptr<std::vector<float>> reused(int64_t size) {
  thread_local std::vector<std::shared_ptr<std::vector<float>>> pool;
  for (auto& memory : pool) {
    if (memory.use_count() > 1) continue;
    if (static_cast<int64_t>(memory->size()) < size) memory->resize(size);
    return memory;
  }
  pool.push_back(std::make_shared<std::vector<float>>(size));
  return pool.back();
}

class Push {
 public:
  Push(const Signal& x, const Step* steps, int64_t n_steps, float* carried, int64_t item_size,
       Counts* counts)
      : x_(x),
        batch_(x.batch),
        steps_(steps),
        n_steps_(n_steps),
        carried_(carried),
        item_size_(item_size),
        counts_(counts),
        held_(n_steps) {}

  Tensor run() {
    for (int64_t i = 0; i < n_steps_; ++i) {
      const Step& step = steps_[i];
      switch (step.kind) {
        case kInput:
          input(step);
          break;
        case kConv:
          convolve(step, i);
          break;
        case kConvTranspose:
          convolve_transposed(step, i);
          break;
        case kActivate:
          activate(step);
          break;
        case kBranch:
          stack_.push_back(stack_.back());
          break;
        case kHold:
          hold(step, i);
          break;
        case kLayerNorm:
          normalise(step);
          break;
        case kAttend:
          attend(step, i);
          break;
        case kAdd:
          add(step);
          break;
        default:
          STD_TORCH_CHECK(false, "fastcodec: push_plan: there is no step ", step.kind);
      }
    }
    const Value& y = stack_.back();
    Tensor out = empty_time_major(batch_, y.channels, y.frames);
    const int64_t size = y.frames * y.channels;
    for (int64_t b = 0; b < batch_; ++b) std::copy_n(y.at(b), size, data(out) + b * size);
    return out;
  }

 private:
  Value make(int64_t headroom, int64_t frames, int64_t channels) const {
    return {reused(batch_ * (headroom + frames) * channels), headroom, frames, channels};
  }

  void input(const Step& step) {
    stack_.push_back(make(step.headroom, x_.frames, x_.channels));
    for (int64_t b = 0; b < batch_; ++b) {
      stage({Activation::kNone}, x_, b, 0, x_.frames, stack_.back().at(b));
    }
  }

  // The carried frames, put right before those of x; to be called before anything else is made.
  void prepend(const Step& step, int64_t i, const Value& x) const {
    STD_TORCH_CHECK(counts_[i].frames <= std::min(x.headroom, step.capacity),
                    "fastcodec: push_plan: no room for ", counts_[i].frames, " carried frames");
    const int64_t size = counts_[i].frames * x.channels;
    for (int64_t b = 0; b < batch_; ++b) {
      std::copy_n(carried_ + b * item_size_ + step.offset, size, x.at(b) - size);
    }
  }

  // Carries `count` frames that begin `begin` frames after the first of x (before it: below zero).
  void carry(const Step& step, int64_t i, const Value& x, int64_t begin, int64_t count) {
    STD_TORCH_CHECK(count <= step.capacity, "fastcodec: push_plan: ", count,
                    " frames to carry, and place for ", step.capacity);
    for (int64_t b = 0; b < batch_; ++b) {
      std::copy_n(x.at(b) + begin * x.channels, count * x.channels,
                  carried_ + b * item_size_ + step.offset);
    }
    counts_[i].frames = count;
  }

  // As Conv1d.push after the padding of the beginning and before that of the end.
  void convolve(const Step& step, int64_t i) {
    const Value x = pop_for(step);
    prepend(step, i, x);
    Counts& n = counts_[i];
    const int64_t before = n.frames, total = before + x.frames;
    const int64_t span = (step.taps - 1) * step.dilation + 1, ready = total - n.first - span;
    const int64_t count = ready < 0 ? 0 : ready / step.stride + 1;
    Value y = make(step.headroom, count, step.columns);
    if (count > 0) {
      Conv p = shape(step);
      p.stride = step.stride, p.dilation = step.dilation, p.frames = count;
      p.blocks = step.groups, p.width = step.columns / step.groups;
      p.medium = is_medium(step.precision, p.channels / p.groups, p.width);
      const Value* held = step.held == 0 ? nullptr : &held_[step.held];
      STD_TORCH_CHECK(held == nullptr || held->frames >= count,
                      "fastcodec: push_plan: a path of a residual unit has run ahead");
      items(step, 2 * count * p.blocks * p.width * p.taps * p.channels / p.groups,
            [&](int64_t b, const Prologue& prologue) {
              Conv q = p;
              q.out = y.at(b);
              q.residual = held == nullptr ? nullptr : held->at(b);
              run_conv(q, frames(x, b, n.first - before, (count - 1) * step.stride + span),
                       prologue);
            });
      const int64_t following = n.first + count * step.stride;
      const int64_t keep = std::max<int64_t>(0, std::min(following, total - step.margin));
      carry(step, i, x, keep - before, total - keep);
      n.first = following - keep, n.second = 1;
    } else {
      carry(step, i, x, -before, total);
    }
    if (step.held != 0) {
      Value& held = held_[step.held];
      carry(steps_[step.held], step.held, held, count, held.frames - count);
      held = {};
    }
    stack_.push_back(std::move(y));
  }

  // As ConvTranspose1d.push, once there is nothing more to cut.
  void convolve_transposed(const Step& step, int64_t i) {
    const Value x = pop_for(step);
    prepend(step, i, x);
    Value y = make(step.headroom, x.frames * step.stride, step.columns);
    if (x.frames > 0) {
      Conv p = shape(step);
      p.stride = p.dilation = 1, p.frames = x.frames;
      p.blocks = step.groups == 1 ? 1 : step.stride * step.groups;
      p.width = step.stride * step.columns / p.blocks;
      p.medium = is_medium(step.precision, p.channels / p.groups, step.columns / p.groups);
      items(step, 2 * y.frames * p.taps * p.channels * step.columns / p.groups,
            [&](int64_t b, const Prologue& prologue) {
              Conv q = p;
              q.out = y.at(b);
              run_conv(q, frames(x, b, 1 - step.taps, x.frames + step.taps - 1), prologue);
            });
      carry(step, i, x, x.frames + 1 - step.taps, step.taps - 1);
    }
    counts_[i].first += x.frames, counts_[i].second += y.frames;
    stack_.push_back(std::move(y));
  }

  void activate(const Step& step) {
    const Value x = pop();
    Value y = make(step.headroom, x.frames, x.channels);
    items(step, 20 * x.frames * x.channels, [&](int64_t b, const Prologue& prologue) {
      stage(prologue, frames(x, b, 0, x.frames), 0, 0, x.frames, y.at(b));
    });
    stack_.push_back(std::move(y));
  }

  // Keeps the signal on top for the convolution that will add it, behind what it had to leave.
  void hold(const Step& step, int64_t i) {
    const Value x = pop();
    const int64_t before = counts_[i].frames;
    if (before == 0) {
      held_[i] = x;
      return;
    }
    Value all = make(0, before + x.frames, x.channels);
    for (int64_t b = 0; b < batch_; ++b) {
      float* to = all.at(b);
      to = std::copy_n(carried_ + b * item_size_ + step.offset, before * x.channels, to);
      std::copy_n(x.at(b), x.frames * x.channels, to);
    }
    held_[i] = std::move(all);
  }

  void normalise(const Step& step) {
    const Value x = pop_for(step);
    Value y = make(step.headroom, x.frames, x.channels);
    for (int64_t b = 0; b < batch_; ++b) {
      normalise_rows(x.at(b), x.frames, x.channels, step.weight, step.bias, slope(step), y.at(b));
    }
    stack_.push_back(std::move(y));
  }

  // held + x * weight, or held + x; two roundings, as torch's.
  void add(const Step& step) {
    const Value x = pop();
    const Value& held = held_[step.held];
    Value y = make(step.headroom, x.frames, x.channels);
    for (int64_t b = 0; b < batch_; ++b) {
      const float *from = x.at(b), *other = held.at(b);
      float* to = y.at(b);
      for (int64_t t = 0; t < x.frames; ++t) {
        for (int64_t c = 0; c < x.channels; ++c, ++from, ++other) {
          *to++ = *other + (step.weight == nullptr ? *from : *from * step.weight[c]);
        }
      }
    }
    held_[step.held] = {};
    stack_.push_back(std::move(y));
  }

  // Attention of each frame of x, a row of queries, keys and values, over the carried keys and
  // those of x up to its own. What is carried are rings, [keys, then values][head][capacity].
  void attend(const Step& step, int64_t i) {
    const Value x = pop_for(step);
    Counts& n = counts_[i];
    Value y = make(step.headroom, x.frames, step.columns);
    const int64_t features = step.columns / step.groups, keys = step.taps * features;
    const int64_t ring = step.capacity * features, kept = n.frames;
    STD_TORCH_CHECK(kept <= step.capacity && step.columns + 2 * keys == x.channels,
                    "fastcodec: push_plan: attention of ", x.channels, " channels");
    const auto of = std::make_tuple(step.weight, n.first, x.frames);
    if (turns_.empty() || turns_of_ != of) {
      turns_of_ = of;
      turns_.resize(x.frames * features);
      rotate(step.weight, features / 2, n.first, x.frames, turns_.data());
    }
    std::vector<int64_t> first(x.frames), last(x.frames);
    for (int64_t t = 0; t < x.frames; ++t) {
      first[t] = std::max<int64_t>(0, kept + t - step.capacity), last[t] = kept + t + 1;
    }
    Attention p = {};
    p.q_frame = x.channels, p.first = first.data(), p.last = last.data();
    p.frames = x.frames, p.keys = kept + x.frames, p.heads = step.groups, p.kv_heads = step.taps;
    p.features = features, p.scale = slope(step);
    const int64_t to_end = std::min(kept, step.capacity - n.second);
    items(step, 4 * x.frames * (kept + x.frames) * step.columns, [&](int64_t b, const Prologue&) {
      float* row = x.at(b);
      float* carried = carried_ + b * item_size_ + step.offset;
      turn(row, x.frames, x.channels, step.columns + keys, features);
      const auto rows = [&](int64_t oldest, int64_t count) -> KeyRows {
        const float* k = carried + oldest * features;
        return {k, k + step.taps * ring, 0, features, ring, 0, features, ring, count};
      };
      const float* k = row + step.columns;
      Attention q = p;
      q.q = row, q.out = y.at(b);
      q.rows[0] = rows(n.second, to_end), q.rows[1] = rows(0, kept - to_end);
      q.rows[2] = {k, k + keys, 0, x.channels, features, 0, x.channels, features, x.frames};
      run_attention(q, 1);
      for (int64_t t = std::max<int64_t>(0, x.frames - step.capacity); t < x.frames; ++t) {
        const int64_t place = (n.second + kept + t) % step.capacity;
        for (int64_t head = 0; head < 2 * step.taps; ++head) {
          std::copy_n(k + t * x.channels + head * features, features,
                      carried + head * ring + place * features);
        }
      }
    });
    n.frames = std::min(step.capacity, kept + x.frames);
    if (step.capacity > 0) n.second = (n.second + kept + x.frames - n.frames) % step.capacity;
    n.first += x.frames;
    stack_.push_back(std::move(y));
  }

  // The first `width` features of each row, pair after pair, by the frame's angles.
  void turn(float* row, int64_t frames, int64_t channels, int64_t width, int64_t features) const {
    for (int64_t t = 0; t < frames; ++t, row += channels) {
      for (int64_t c = 0; c < width; c += features) {
        const float* turns = turns_.data() + t * features;
        for (int64_t d = c; d < c + features; d += 2, turns += 2) {
          const float even = row[d], odd = row[d + 1];
          row[d] = even * turns[0] - odd * turns[1];
          row[d + 1] = even * turns[1] + odd * turns[0];
        }
      }
    }
  }

  Conv shape(const Step& step) const {
    Conv p = {};
    p.channels = step.channels, p.taps = step.taps, p.groups = step.groups;
    p.weight = step.weight, p.bias = step.bias, p.bias_size = step.columns;
    return p;
  }

  static float slope(const Step& step) {
    float slope;
    std::memcpy(&slope, &step.slope, sizeof(slope));
    return slope;
  }

  // f(item, prologue) for the items of the batch, on threads of their own where they are enough.
  template <typename F>
  void items(const Step& step, int64_t flops, const F& f) {
    Prologue prologue = {};
    prologue.kind = static_cast<Activation>(step.activation), prologue.slope = slope(step);
    if (prologue.kind == Activation::kSnake) {
      set_snake(prologue, step.alpha, nullptr, step.channels, snake_);
    }
    const bool enough = batch_ >= thread_count();
    parallel(batch_, enough ? batch_ * flops : 0, [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) f(b, prologue);
    });
  }

  // `count` frames of one item, beginning `begin` after the first.
  Signal frames(const Value& x, int64_t item, int64_t begin, int64_t count) const {
    Signal s = x_;
    s.x = x.at(item) + begin * x.channels;
    s.batch = 1, s.channels = x.channels, s.frames = count;
    s.batch_stride = count * x.channels, s.frame_stride = x.channels, s.channel_stride = 1;
    return s;
  }

  Value pop() {
    Value x = std::move(stack_.back());
    stack_.pop_back();
    return x;
  }

  Value pop_for(const Step& step) {
    Value x = pop();
    STD_TORCH_CHECK(x.channels == step.channels, "fastcodec: push_plan: expected ", step.channels,
                    " channels, got ", x.channels);
    return x;
  }

  const Signal& x_;
  const int64_t batch_;
  const Step* steps_;
  const int64_t n_steps_;
  float* carried_;
  const int64_t item_size_;
  Counts* counts_;
  std::vector<Value> stack_, held_;  // held_: by the number of the hold step
  std::vector<float> snake_;
  // Rotary positions of the last attention, and of what: the layers of a net share them.
  std::vector<float> turns_;
  std::tuple<const float*, int64_t, int64_t> turns_of_;
};

}  // namespace

Tensor push_plan(Tensor x, Tensor steps, Tensor carried, Tensor counts) {
  const Signal s(x, "push_plan: x");
  check_float(carried, "push_plan: carried");
  const auto integers = [](const Tensor& t, int64_t columns) {
    return t.is_cpu() && t.scalar_type() == torch::headeronly::ScalarType::Long && t.dim() == 2 &&
           t.size(1) == columns && t.is_contiguous();
  };
  STD_TORCH_CHECK(integers(steps, kFields) && integers(counts, 3) && steps.size(0) > 1 &&
                      counts.size(0) == steps.size(0),
                  "fastcodec: push_plan: steps [N, ", kFields, "] and counts [N, 3] int64");
  const Step* first = static_cast<const Step*>(steps.data_ptr());
  STD_TORCH_CHECK(first->kind == kInput, "fastcodec: push_plan: a plan begins with its input");
  STD_TORCH_CHECK(carried.dim() == 2 && carried.is_contiguous() && carried.size(0) == s.batch &&
                      carried.size(1) == first->capacity,
                  "fastcodec: push_plan: carried must be [", s.batch, ", ", first->capacity, "]");
  return Push(s, first, steps.size(0), data(carried), carried.size(1),
              static_cast<Counts*>(counts.data_ptr()))
      .run();
}

}  // namespace fastcodec
