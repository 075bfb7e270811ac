// EnCodec's entropy-coding transformer LM, the same bits on every machine.
//
// Source: facebookresearch/encodec encodec/model.py, encodec/modules/transformer.py@0e2d0aed. The
// plain torch reference is fastcodec/codecs/encodec_lm.py. Changing the order of any operation
// here makes earlier files undecodable: give such a model another kName.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "packed_linear.h"

namespace fastcodec {

struct EntropyModelShape {
  int64_t codebooks;  // K of the weights; a session may use fewer
  int64_t codewords;  // N
  int64_t features;   // D
  int64_t layers;
  int64_t heads;
  int64_t hidden;       // of the feed-forward block
  int64_t past_frames;  // the frames before the present one that attention sees
};

// float32 weights by upstream's state-dict key; checks the shape and throws where one is missing.
using WeightSource =
    std::function<const float*(const std::string& key, std::initializer_list<int64_t> shape)>;

struct LayerNorm {
  std::vector<float> weight, bias;
  void Apply(float* x) const;
};

struct EntropyLayer {
  PackedLinear in_proj, out_proj, linear1, linear2;
  LayerNorm norm1, norm2;
};

// Immutable once made: sessions on several threads may share one.
struct EntropyModel {
  static constexpr const char* kName = "fastcodec-1";

  EntropyModel(const EntropyModelShape& shape, const WeightSource& source);

  EntropyModelShape shape;
  std::vector<EntropyLayer> layers;
  LayerNorm norm_in;
  std::vector<float> embeddings;       // [K][N + 1][D]
  std::vector<PackedLinear> logits;    // [K]
  std::vector<float> angular_periods;  // [D / 2] frames a radian
};

// One segment, frame by frame.
class EntropySession {
 public:
  EntropySession(const EntropyModel& model, int64_t codebooks);

  // Probabilities [codebooks][N] of the next frame's codes; `previous` [codebooks] are the codes of
  // the frame before, or null before the first.
  void Step(const int64_t* previous, float* probabilities);

  const EntropyModel& model() const { return model_; }
  int64_t codebooks() const { return codebooks_; }

 private:
  // What attention keeps of one layer: a ring of `slots_` frames. Heads are padded to kLanes.
  struct Cache {
    std::vector<float> keys;    // [heads][head features][slots]
    std::vector<float> values;  // [slots][heads][head features, padded]
  };

  void Embed(const int64_t* previous);
  void Attend(const EntropyLayer& layer, Cache* cache);
  void AttendHead(int64_t head, const Cache& cache);
  void FeedForward(const EntropyLayer& layer);
  void Append(const float* keys, const float* values, Cache* cache) const;

  const EntropyModel& model_;
  int64_t codebooks_;
  int64_t head_features_, head_stride_;
  int64_t window_, slots_;
  int64_t entries_ = 0;  // frames in the caches so far, the initial zero vector included
  std::vector<Cache> caches_;
  std::vector<float> x_, projected_, scores_, head_, context_, hidden_, delta_;
};

}  // namespace fastcodec
