#include "entropy_model.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "deterministic_math.h"

namespace fastcodec {
namespace {

constexpr double kLogMaxPeriod = 9.210340371976184;  // ln 10000

void CheckShape(const EntropyModelShape& s) {
  const int64_t sizes[] = {s.codebooks, s.codewords, s.layers, s.heads, s.hidden, s.past_frames};
  const bool positive = std::all_of(std::begin(sizes), std::end(sizes),
                                    [](int64_t size) { return size >= 1 && size <= 1 << 20; });
  if (!positive || s.features < 4 || s.features > 1 << 20 || s.features % 2 != 0 ||
      s.features % s.heads != 0) {
    throw std::invalid_argument(
        "EntropyModel: sizes must be positive and features an even multiple of heads");
  }
}

LayerNorm LoadNorm(const WeightSource& source, const std::string& prefix, int64_t features) {
  const float* weight = source(prefix + ".weight", {features});
  const float* bias = source(prefix + ".bias", {features});
  return {{weight, weight + features}, {bias, bias + features}};
}

PackedLinear LoadLinear(const WeightSource& source, const std::string& prefix, int64_t outputs,
                        int64_t inputs, const char* separator = ".") {
  return PackedLinear(source(prefix + separator + "weight", {outputs, inputs}),
                      source(prefix + separator + "bias", {outputs}), outputs, inputs);
}

// x[i] <- e^(x[i] - max) / sum of all, the sum in the array's order.
void Softmax(float* x, int64_t n) {
  const double maximum = *std::max_element(x, x + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    x[i] = static_cast<float>(Exp(x[i] - maximum));
    sum += x[i];
  }
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(x[i] / sum);
}

}  // namespace

void LayerNorm::Apply(float* x) const {
  const auto n = static_cast<int64_t>(weight.size());
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) mean += x[i];
  mean /= n;
  double variance = 0;
  for (int64_t i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
  const double scale = 1.0 / std::sqrt(variance / n + 1e-5);
  for (int64_t i = 0; i < n; ++i) {
    x[i] = static_cast<float>((x[i] - mean) * scale) * weight[i] + bias[i];
  }
}

EntropyModel::EntropyModel(const EntropyModelShape& s, const WeightSource& source) : shape(s) {
  CheckShape(s);
  norm_in = LoadNorm(source, "transformer.norm_in", s.features);
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string layer = "transformer.layers." + std::to_string(i);
    layers.push_back({
        LoadLinear(source, layer + ".self_attn.in_proj", 3 * s.features, s.features, "_"),
        LoadLinear(source, layer + ".self_attn.out_proj", s.features, s.features),
        LoadLinear(source, layer + ".linear1", s.hidden, s.features),
        LoadLinear(source, layer + ".linear2", s.features, s.hidden),
        LoadNorm(source, layer + ".norm1", s.features),
        LoadNorm(source, layer + ".norm2", s.features),
    });
  }
  const int64_t rows = s.codewords + 1;
  for (int64_t k = 0; k < s.codebooks; ++k) {
    const float* table = source("emb." + std::to_string(k) + ".weight", {rows, s.features});
    embeddings.insert(embeddings.end(), table, table + rows * s.features);
    logits.push_back(LoadLinear(source, "linears." + std::to_string(k), s.codewords, s.features));
  }
  const int64_t half = s.features / 2;
  for (int64_t i = 0; i < half; ++i) {
    angular_periods.push_back(static_cast<float>(Exp(kLogMaxPeriod * i / (half - 1))));
  }
}

EntropySession::EntropySession(const EntropyModel& model, int64_t codebooks)
    : model_(model), codebooks_(codebooks) {
  const EntropyModelShape& s = model.shape;
  if (codebooks < 1 || codebooks > s.codebooks) {
    throw std::invalid_argument("EntropySession: codebooks must be in [1, " +
                                std::to_string(s.codebooks) + "], got " +
                                std::to_string(codebooks));
  }
  head_features_ = s.features / s.heads;
  head_stride_ = PaddedTo(kLanes, head_features_);
  window_ = s.past_frames + 1;
  slots_ = PaddedTo(kLanes, window_);
  x_.resize(PaddedTo(kPanel, s.features));
  delta_.resize(x_.size());
  projected_.resize(PaddedTo(kPanel, 3 * s.features));
  scores_.resize(slots_);
  head_.resize(head_stride_);
  context_.resize(s.features);
  hidden_.resize(PaddedTo(kPanel, s.hidden));
  caches_.resize(s.layers);
  // Upstream starts with one zero vector a layer, whose keys and values are the biases.
  for (int64_t i = 0; i < s.layers; ++i) {
    caches_[i].keys.resize(s.features * slots_);
    caches_[i].values.resize(slots_ * s.heads * head_stride_);
    model.layers[i].in_proj.Apply(x_.data(), projected_.data());
    Append(&projected_[s.features], &projected_[2 * s.features], &caches_[i]);
  }
  entries_ = 1;
}

void EntropySession::Append(const float* keys, const float* values, Cache* cache) const {
  const int64_t slot = entries_ % window_;
  for (int64_t d = 0; d < model_.shape.features; ++d) cache->keys[d * slots_ + slot] = keys[d];
  float* row = &cache->values[slot * model_.shape.heads * head_stride_];
  for (int64_t h = 0; h < model_.shape.heads; ++h) {
    std::copy_n(values + h * head_features_, head_features_, row + h * head_stride_);
  }
}

void EntropySession::Embed(const int64_t* previous) {
  const int64_t features = model_.shape.features;
  const int64_t rows = model_.shape.codewords + 1;
  std::fill(x_.begin(), x_.end(), 0.0f);
  for (int64_t k = 0; k < codebooks_; ++k) {
    // Row 0 stands for the missing frame before the first.
    const int64_t row = previous == nullptr ? 0 : previous[k] + 1;
    const float* embedding = &model_.embeddings[(k * rows + row) * features];
    for (int64_t d = 0; d < features; ++d) x_[d] += embedding[d];
  }
  model_.norm_in.Apply(x_.data());
  const auto frame = static_cast<float>(entries_ - 1);
  const int64_t half = features / 2;
  for (int64_t i = 0; i < half; ++i) {
    double cosine, sine;
    CosSin(frame / model_.angular_periods[i], &cosine, &sine);
    x_[i] += static_cast<float>(cosine);
    x_[half + i] += static_cast<float>(sine);
  }
}

void EntropySession::AttendHead(int64_t head, const Cache& cache) {
  const int64_t visible = std::min(entries_ + 1, window_);
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_features_)));
  const float* query = &projected_[head * head_features_];
  const float* keys = &cache.keys[head * head_features_ * slots_];
  std::fill(scores_.begin(), scores_.end(), 0.0f);
  for (int64_t d = 0; d < head_features_; ++d) {
    AddScaled(query[d] * scale, keys + d * slots_, PaddedTo(kLanes, visible), scores_.data());
  }
  Softmax(scores_.data(), visible);
  std::fill(head_.begin(), head_.end(), 0.0f);
  const int64_t row = model_.shape.heads * head_stride_;
  for (int64_t slot = 0; slot < visible; ++slot) {
    AddScaled(scores_[slot], &cache.values[slot * row + head * head_stride_], head_stride_,
              head_.data());
  }
}

void EntropySession::Attend(const EntropyLayer& layer, Cache* cache) {
  const int64_t features = model_.shape.features;
  layer.in_proj.Apply(x_.data(), projected_.data());
  Append(&projected_[features], &projected_[2 * features], cache);
  for (int64_t h = 0; h < model_.shape.heads; ++h) {
    AttendHead(h, *cache);
    std::copy_n(head_.begin(), head_features_, &context_[h * head_features_]);
  }
  layer.out_proj.Apply(context_.data(), delta_.data());
}

void EntropySession::FeedForward(const EntropyLayer& layer) {
  layer.linear1.Apply(x_.data(), hidden_.data());
  for (float& h : hidden_) {
    h = static_cast<float>(0.5 * h * (1.0 + Erf(h * 0.70710678118654752)));
  }
  layer.linear2.Apply(hidden_.data(), delta_.data());
}

void EntropySession::Step(const int64_t* previous, float* probabilities) {
  Embed(previous);
  for (size_t i = 0; i < model_.layers.size(); ++i) {
    const EntropyLayer& layer = model_.layers[i];
    Attend(layer, &caches_[i]);
    for (int64_t d = 0; d < model_.shape.features; ++d) x_[d] += delta_[d];
    layer.norm1.Apply(x_.data());
    FeedForward(layer);
    for (int64_t d = 0; d < model_.shape.features; ++d) x_[d] += delta_[d];
    layer.norm2.Apply(x_.data());
  }
  ++entries_;
  const int64_t codewords = model_.shape.codewords;
  std::vector<float> row(PaddedTo(kPanel, codewords));
  for (int64_t k = 0; k < codebooks_; ++k) {
    model_.logits[k].Apply(x_.data(), row.data());
    Softmax(row.data(), codewords);
    std::copy_n(row.data(), codewords, probabilities + k * codewords);
  }
}

}  // namespace fastcodec
