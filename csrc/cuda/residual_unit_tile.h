// The arithmetic of residual_unit.cu, a warp at a time. Compiled by nvcc it is what a thread does;
// by a host compiler the same code, with every value of a warp held for its 32 lanes, so that tests
// run it without a GPU.
//
//   tile (shared): act(x) of frames + context, a row a frame ── multiply, a tap after the other ──
//   hidden: the sums of 16 frames by H, in the registers of a warp ── act ── they are the left
//   operand of the second product as they lie ── + bias + x ──> y
//
// Operands lie as mma.sync m16n8 wants them: 8 words (of two bfloat16, or of one float32) a step of
// the sum. Lane = 4 g + t holds of the left operand the words (g, t), (g + 8, t), (g, t + 4),
// (g + 8, t + 4) of (row, word), of the right one (t, g), (t + 4, g) of (word, column), and of the
// result (g, 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define FC_UNIT __device__ __forceinline__
#define FC_UNROLL _Pragma("unroll")
#define FC_UNROLL_STEPS _Pragma("unroll kUnroll")
#else
#define FC_UNIT inline
#define FC_UNROLL
#define FC_UNROLL_STEPS
#endif

namespace fastcodec {
namespace unit {

#ifdef __CUDACC__
constexpr int kSlots = 1;  // lanes that run in one copy of the code
FC_UNIT int lane_of(int) { return threadIdx.x % 32; }
#else
constexpr int kSlots = 32;
FC_UNIT int lane_of(int slot) { return slot; }
#endif

struct Four {
  float v[4];
};
struct alignas(8) Two {
  float v[2];
};
struct alignas(16) Quad {
  uint32_t w[4];
};

// One value of each lane.
template <class T>
struct Lanes {
  T at[kSlots];
};

enum Activation { kNone, kElu, kLeakyRelu, kSnake };

struct Unit {
  const float* x;           // [B, S, C] with the strides below
  const float* bias;        // [H], or null
  const float* point_bias;  // [C], or null
  const uint32_t* packed;   // both weights, then turns, lost and inverse of C and of H channels
  float* out;               // [B, T, C]
  int64_t batch, frames;    // of the result
  int64_t x_batch, x_frame;
  int channels, hidden, taps, dilation, left, activation;
  float slope;
};

FC_UNIT uint32_t bits_of(float x) {
  uint32_t b;
  memcpy(&b, &x, 4);
  return b;
}

FC_UNIT float float_of(uint32_t b) {
  float x;
  memcpy(&x, &b, 4);
  return x;
}

// To bfloat16, ties to even, in the low half.
FC_UNIT uint32_t bf16(float x) {
  if (x != x) return 0x7fc0;
  const uint32_t b = bits_of(x);
  return (b + 0x7fff + (b >> 16 & 1)) >> 16;
}

// Two to a word, the first in the low half.
FC_UNIT uint32_t bf16_pair(float low, float high) {
#ifdef __CUDACC__
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return bf16(low) | bf16(high) << 16;
#endif
}

// x = high + low, high in the 10 bits of a TF32 number. What is not finite is all in high: an
// infinite value times the low part of a weight would be a NaN.
FC_UNIT bool is_finite(float x) { return fabsf(x) <= 3.402823466e38f; }
FC_UNIT float tf32_high(float x) {
  return is_finite(x) ? float_of((bits_of(x) + 0x1000) & 0xffffe000u) : x;
}
FC_UNIT float tf32_low(float x, float high) { return is_finite(x) ? x - high : 0.0f; }

// Of a snake with this alpha: the argument's half turns for each unit of x, what their float32
// loses, and 1 / (alpha + 1e-9).
struct Curve {
  float turns, lost, inverse;
};

FC_UNIT Curve curve_of(float alpha) {
  const float turns = alpha * 0.31830987f;
  const float lost = fmaf(alpha, 0.31830987f, -turns) + alpha * 1.2841276e-08f;
  return {turns, lost, 1.0f / (alpha + 1e-9f)};
}

// The polynomial is csrc/cpu/vec.h's: sin(pi f)^2 of f^2 for |f| <= 1/2.
FC_UNIT float snaked(float x, Curve c) {
  const float product = x * c.turns;
  const float part = fmaf(x, c.turns, -floorf(product + 0.5f)) + x * c.lost;
  const float s = part * part;
  float p = fmaf(s, -3.33621097f, 13.0371122f);
  p = fmaf(p, s, -30.0985527f);
  p = fmaf(p, s, 42.7269287f);
  p = fmaf(p, s, -32.4696617f);
  p = fmaf(p, s, 9.86960411f);
  return fmaf(p, s * c.inverse, x);
}

FC_UNIT float activated(float x, int activation, float slope, Curve c) {
  if (activation == kSnake) return snaked(x, c);
  if (activation == kElu) return x > 0.0f ? x : expm1f(x);
  if (activation == kLeakyRelu) return x > 0.0f ? x : x * slope;
  return x;
}

// The constants of `count` channels lie in three rows.
FC_UNIT Curve curve_at(const uint32_t* rows, int count, int channel) {
  return {float_of(rows[channel]), float_of(rows[count + channel]),
          float_of(rows[2 * count + channel])};
}

FC_UNIT Quad load(const uint32_t* words) {
#ifdef __CUDACC__
  const uint4 q = *reinterpret_cast<const uint4*>(words);
  return {{q.x, q.y, q.z, q.w}};
#else
  Quad q;
  memcpy(&q, words, sizeof q);
  return q;
#endif
}

FC_UNIT void store(uint32_t* words, Quad q) {
#ifdef __CUDACC__
  *reinterpret_cast<uint4*>(words) = make_uint4(q.w[0], q.w[1], q.w[2], q.w[3]);
#else
  memcpy(words, &q, sizeof q);
#endif
}

#ifdef __CUDACC__
FC_UNIT void mma_bf16(Lanes<Four>& c, const Lanes<Quad>& a, const uint32_t (&b)[1][2]) {
  float* v = c.at[0].v;
  const uint32_t* w = a.at[0].w;
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(v[0]), "+f"(v[1]), "+f"(v[2]), "+f"(v[3])
      : "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]), "r"(b[0][0]), "r"(b[0][1]));
}
FC_UNIT void mma_tf32(Lanes<Four>& c, const Lanes<Quad>& a, const uint32_t (&b)[1][2]) {
  float* v = c.at[0].v;
  const uint32_t* w = a.at[0].w;
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(v[0]), "+f"(v[1]), "+f"(v[2]), "+f"(v[3])
      : "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]), "r"(b[0][0]), "r"(b[0][1]));
}
#else
// The same of all 32 lanes: the words are put together as matrices by the layout above. `terms`
// products a word.
template <class Values>
inline void mma(Lanes<Four>& c, const Lanes<Quad>& a, const uint32_t (&b)[32][2], int terms,
                Values value) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      double sum = c.at[lane].v[i];
      for (int word = 0; word < 8; ++word) {
        const Quad& from = a.at[row % 8 * 4 + word % 4];
        const uint32_t left = from.w[row / 8 + word / 4 * 2];
        const uint32_t right = b[column * 4 + word % 4][word / 4];
        for (int term = 0; term < terms; ++term) {
          sum += static_cast<double>(value(left, term)) * value(right, term);
        }
      }
      c.at[lane].v[i] = static_cast<float>(sum);
    }
  }
}
inline void mma_bf16(Lanes<Four>& c, const Lanes<Quad>& a, const uint32_t (&b)[32][2]) {
  mma(c, a, b, 2, [](uint32_t w, int term) { return float_of(term ? w & 0xffff0000u : w << 16); });
}
inline void mma_tf32(Lanes<Four>& c, const Lanes<Quad>& a, const uint32_t (&b)[32][2]) {
  mma(c, a, b, 1, [](uint32_t w, int) { return float_of(w & 0xffffe000u); });
}
#endif

// Products of bfloat16: a word holds two channels, a packed quad the right operands of two tiles of
// 8 columns.
struct Bf16 {
  static constexpr int kStep = 16, kPerWord = 2, kQuadTiles = 2;
  static constexpr bool kByTap = false;
  struct Left {
    Lanes<Quad> a;
  };

  static FC_UNIT void split(Left&) {}

  static FC_UNIT void stage(uint32_t* row, int channel, const float (&v)[4]) {
    row[channel / 2] = bf16_pair(v[0], v[1]);
    row[channel / 2 + 1] = bf16_pair(v[2], v[3]);
  }

  // Adds to the results of kQuadTiles tiles.
  static FC_UNIT void multiply(Lanes<Four>* sums, const Left& left, const Lanes<Quad>& quad) {
    FC_UNROLL for (int j = 0; j < 2; ++j) {
      uint32_t b[kSlots][2];
      for (int i = 0; i < kSlots; ++i) {
        b[i][0] = quad.at[i].w[2 * j];
        b[i][1] = quad.at[i].w[2 * j + 1];
      }
      mma_bf16(sums[j], left.a, b);
    }
  }

  // Results as a left operand: step s is made of the tiles 2 s and 2 s + 1.
  static FC_UNIT void turn(Lanes<Quad>& a, const Lanes<Four>* tiles, int s) {
    for (int i = 0; i < kSlots; ++i) {
      const float *low = tiles[2 * s].at[i].v, *high = tiles[2 * s + 1].at[i].v;
      a.at[i] = {{bf16_pair(low[0], low[1]), bf16_pair(low[2], low[3]), bf16_pair(high[0], high[1]),
                  bf16_pair(high[2], high[3])}};
    }
  }
};

// Products of float32 as three of TF32 pairs. Tensor cores cut off what a sum loses, which adds up
// in one direction: a tap's sum begins anew, and is added with rounding.
struct Tf32 {
  static constexpr int kStep = 8, kPerWord = 1, kQuadTiles = 1;
  static constexpr bool kByTap = true;
  struct Left {
    Lanes<Quad> a, finite, low;  // `a` becomes the high parts; finite: those, or 0
  };

  static FC_UNIT void split(Left& left) {
    for (int i = 0; i < kSlots; ++i) {
      FC_UNROLL for (int k = 0; k < 4; ++k) {
        const float x = float_of(left.a.at[i].w[k]), high = tf32_high(x);
        left.a.at[i].w[k] = bits_of(high);
        left.finite.at[i].w[k] = bits_of(is_finite(high) ? high : 0.0f);
        left.low.at[i].w[k] = bits_of(tf32_low(x, high));
      }
    }
  }

  static FC_UNIT void stage(uint32_t* row, int channel, const float (&v)[4]) {
    store(row + channel, {{bits_of(v[0]), bits_of(v[1]), bits_of(v[2]), bits_of(v[3])}});
  }

  static FC_UNIT void multiply(Lanes<Four>* sums, const Left& left, const Lanes<Quad>& quad) {
    uint32_t high[kSlots][2], low[kSlots][2];
    for (int i = 0; i < kSlots; ++i) {
      FC_UNROLL for (int k = 0; k < 2; ++k) {
        high[i][k] = quad.at[i].w[k];
        low[i][k] = quad.at[i].w[2 + k];
      }
    }
    mma_tf32(sums[0], left.low, high);
    mma_tf32(sums[0], left.finite, low);
    mma_tf32(sums[0], left.a, high);
  }

  // Step s is tile s, its columns in the order 0, 2, 4, 6, 1, 3, 5, 7; the packed weights follow.
  static FC_UNIT void turn(Lanes<Quad>& a, const Lanes<Four>* tiles, int s) {
    for (int i = 0; i < kSlots; ++i) {
      const float* v = tiles[s].at[i].v;
      a.at[i] = {{bits_of(v[0]), bits_of(v[2]), bits_of(v[1]), bits_of(v[3])}};
    }
  }
};

// A weight [outputs, inputs, taps], packed: [step][quad of columns][lane].
struct Matrix {
  const float* weight;
  int inputs, outputs, taps;
  bool turned;  // multiplies what `turn` makes
};

template <class Kind>
FC_UNIT int64_t quads(const Matrix& m) {
  return static_cast<int64_t>(m.taps) * (m.inputs / Kind::kStep) *
         (m.outputs / (8 * Kind::kQuadTiles)) * 32;
}

template <class Kind>
FC_UNIT Quad pack(const Matrix& m, int64_t index) {
  const int lane = static_cast<int>(index % 32), g = lane / 4, t = lane % 4;
  const int groups = m.outputs / (8 * Kind::kQuadTiles), steps = m.inputs / Kind::kStep;
  const int group = static_cast<int>(index / 32 % groups);
  const int step = static_cast<int>(index / 32 / groups);
  const int tap = step / steps, first = step % steps * Kind::kStep;
  const auto value = [&](int output, int input) {
    return m.weight[(static_cast<int64_t>(output) * m.inputs + first + input) * m.taps + tap];
  };
  Quad q;
  FC_UNROLL for (int k = 0; k < 2; ++k) {
    if constexpr (Kind::kPerWord == 2) {
      FC_UNROLL for (int j = 0; j < 2; ++j) {
        const int output = group * 16 + j * 8 + g, input = k * 8 + 2 * t;
        q.w[2 * j + k] = bf16_pair(value(output, input), value(output, input + 1));
      }
    } else {
      const float w = value(group * 8 + g, m.turned ? 2 * t + k : t + 4 * k);
      const float high = tf32_high(w);
      q.w[k] = bits_of(high);
      q.w[2 + k] = bits_of(tf32_high(tf32_low(w, high)));
    }
  }
  return q;
}

template <class Kind>
FC_UNIT int row_words(int channels) {
  return channels / Kind::kPerWord + 4;
}

// A thread's part of act(x) of the frames from `first` on, zeros beyond the signal's end.
template <class Kind>
FC_UNIT void stage(const Unit& u, const uint32_t* curves, uint32_t* tile, int64_t item,
                   int64_t first, int rows, int thread, int threads) {
  const int fours = u.channels / 4, stride = row_words<Kind>(u.channels);
  const int64_t there = u.frames + static_cast<int64_t>(u.taps - 1) * u.dilation - first;
  const float* x = u.x + item * u.x_batch + first * u.x_frame;
  int row = thread / fours, four = thread % fours;
  while (row < rows) {
    float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    const int channel = 4 * four;
    if (row < there) {
      const Quad q = load(reinterpret_cast<const uint32_t*>(x + row * u.x_frame + channel));
      Quad c[3] = {};
      if (u.activation == kSnake) {
        FC_UNROLL for (int k = 0; k < 3; ++k) c[k] = load(curves + k * u.channels + channel);
      }
      FC_UNROLL for (int k = 0; k < 4; ++k) {
        const Curve curve = {float_of(c[0].w[k]), float_of(c[1].w[k]), float_of(c[2].w[k])};
        v[k] = activated(float_of(q.w[k]), u.activation, u.slope, curve);
      }
    }
    Kind::stage(tile + row * stride, channel, v);
    row += threads / fours;
    four += threads % fours;
    if (four >= fours) {
      four -= fours;
      ++row;
    }
  }
}

// The rows [row, row + 16 * kRows) of a tile whose first row is frame `first`: kTiles tiles of 8
// hidden channels.
template <class Kind, int kTiles, int kRows>
FC_UNIT void warp_tile(const Unit& u, const uint32_t* tile, const uint32_t* weights,
                       const uint32_t* curves, int64_t item, int64_t first, int row) {
  constexpr int kGroups = kTiles / Kind::kQuadTiles;
  // Tiles at a time, and steps at a time, as the registers have room.
  constexpr int kSome = Kind::kByTap && kTiles > 16 ? kTiles / 2 : kTiles;
  [[maybe_unused]] constexpr int kUnroll = kRows * kTiles > (Kind::kByTap ? 8 : 24) ? 1 : 2;
  const int stride = row_words<Kind>(u.channels), steps = u.channels / Kind::kStep;
  Lanes<Four> sums[kRows][kTiles] = {};
  for (int tap = 0; tap < u.taps; ++tap) {
    FC_UNROLL for (int begin = 0; begin < kTiles; begin += kSome) {
      Lanes<Four> parts[kRows][kSome] = {};
      FC_UNROLL_STEPS for (int step = 0; step < steps; ++step) {
        typename Kind::Left left[kRows];
        FC_UNROLL for (int m = 0; m < kRows; ++m) {
          for (int i = 0; i < kSlots; ++i) {
            const int lane = lane_of(i);
            const uint32_t* from =
                tile + (row + 16 * m + lane / 4 + tap * u.dilation) * stride + 8 * step + lane % 4;
            left[m].a.at[i] = {{from[0], from[8 * stride], from[4], from[8 * stride + 4]}};
          }
          Kind::split(left[m]);
        }
        const uint32_t* here = weights + (step * kGroups + begin / Kind::kQuadTiles) * 32 * 4;
        FC_UNROLL for (int group = 0; group < kSome / Kind::kQuadTiles; ++group) {
          Lanes<Quad> quad;
          for (int i = 0; i < kSlots; ++i) quad.at[i] = load(here + (group * 32 + lane_of(i)) * 4);
          FC_UNROLL for (int m = 0; m < kRows; ++m) {
            Lanes<Four>* to = Kind::kByTap ? parts[m] : sums[m];
            Kind::multiply(to + group * Kind::kQuadTiles, left[m], quad);
          }
        }
      }
      if constexpr (Kind::kByTap) {
        FC_UNROLL for (int m = 0; m < kRows; ++m) {
          FC_UNROLL for (int j = 0; j < kSome; ++j) {
            for (int i = 0; i < kSlots; ++i) {
              float *sum = sums[m][begin + j].at[i].v, *part = parts[m][j].at[i].v;
              FC_UNROLL for (int k = 0; k < 4; ++k) sum[k] += part[k];
            }
          }
        }
      }
    }
    weights += steps * kGroups * 32 * 4;
  }
  curves += 3 * u.channels;
  FC_UNROLL for (int j = 0; j < kTiles; ++j) {
    for (int i = 0; i < kSlots; ++i) {
      FC_UNROLL for (int k = 0; k < 2; ++k) {
        const int h = 8 * j + lane_of(i) % 4 * 2 + k;
        const float bias = u.bias == nullptr ? 0.0f : u.bias[h];
        const Curve curve =
            u.activation == kSnake ? curve_at(curves, u.hidden, h) : Curve{0.0f, 0.0f, 0.0f};
        FC_UNROLL for (int m = 0; m < kRows; ++m) {
          float* v = sums[m][j].at[i].v;
          v[k] = activated(v[k] + bias, u.activation, u.slope, curve);
          v[k + 2] = activated(v[k + 2] + bias, u.activation, u.slope, curve);
        }
      }
    }
  }
  constexpr int kSteps = kTiles * 8 / Kind::kStep;
  constexpr int kQuads = 2 / Kind::kQuadTiles;  // of 16 columns
  const int quads_a_step = u.channels / 8 / Kind::kQuadTiles;
  Lanes<Quad> hidden[kRows][kSteps];
  FC_UNROLL for (int m = 0; m < kRows; ++m) {
    FC_UNROLL for (int step = 0; step < kSteps; ++step) {
      Kind::turn(hidden[m][step], sums[m], step);
    }
  }
  for (int pair = 0; pair < u.channels / 16; ++pair) {
    Lanes<Four> y[kRows][2] = {};
    FC_UNROLL for (int step = 0; step < kSteps; ++step) {
      typename Kind::Left left[kRows];
      FC_UNROLL for (int m = 0; m < kRows; ++m) {
        left[m].a = hidden[m][step];
        Kind::split(left[m]);
      }
      FC_UNROLL for (int q = 0; q < kQuads; ++q) {
        Lanes<Quad> quad;
        for (int i = 0; i < kSlots; ++i) {
          const int at = step * quads_a_step + pair * kQuads + q;
          quad.at[i] = load(weights + (at * 32 + lane_of(i)) * 4);
        }
        FC_UNROLL for (int m = 0; m < kRows; ++m) {
          Kind::multiply(&y[m][q * Kind::kQuadTiles], left[m], quad);
        }
      }
    }
    FC_UNROLL for (int m = 0; m < kRows; ++m) {
      for (int i = 0; i < kSlots; ++i) {
        const int lane = lane_of(i);
        FC_UNROLL for (int half = 0; half < 2; ++half) {
          const int64_t frame = first + row + 16 * m + lane / 4 + 8 * half;
          if (frame >= u.frames) continue;
          const float* skip = u.x + item * u.x_batch + (frame + u.left) * u.x_frame;
          float* out = u.out + (item * u.frames + frame) * u.channels;
          FC_UNROLL for (int j = 0; j < 2; ++j) {
            const int c = 16 * pair + 8 * j + lane % 4 * 2;
            const Two x = *reinterpret_cast<const Two*>(skip + c);
            Two bias = {};
            if (u.point_bias != nullptr) bias = *reinterpret_cast<const Two*>(u.point_bias + c);
            const float* v = y[m][j].at[i].v + 2 * half;
            *reinterpret_cast<Two*>(out +
                                    c) = {{v[0] + bias.v[0] + x.v[0], v[1] + bias.v[1] + x.v[1]}};
          }
        }
      }
    }
  }
}

}  // namespace unit
}  // namespace fastcodec
