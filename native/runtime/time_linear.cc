#include "runtime/time_linear.h"

#include <chrono>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>

#include "runtime/buffer.h"
#include "runtime/thread_pool.h"

namespace openwork {

namespace {

// More than the second level cache of one core holds: between two uses of a layer's weights a network streams the other
// layers' weights through it, so that they come from the third level.
constexpr int64_t kOtherBytes = 4 << 20;
constexpr int kActivationSets = 4;

void run_layer(ThreadPool& pool, const LinearLayer& layer, int64_t rows, const LinearBuffers& buffers) {
  const LinearPartition partition = layer.partition(rows, pool.threads());
  pool.run(partition.units(), [&](int64_t unit, int) { layer.run(buffers, partition.block(unit)); });
}

void check(bool holds, const std::string& sentence) {
  if (!holds) throw std::invalid_argument(sentence);
}

int64_t row_bytes(const PackedWeights& w) { return w.k() * element_bytes(w.type()); }

// Random bytes, or numbers between -1 and 1.
void fill(std::vector<uint8_t>& bytes, Type type, std::mt19937& random) {
  std::uniform_real_distribution<float> real(-1.0f, 1.0f);
  const size_t width = element_bytes(type);
  for (size_t i = 0; i + width <= bytes.size(); i += width) {
    const float number = real(random);
    if (type == Type::i8)
      bytes[i] = static_cast<uint8_t>(random());
    else  // BF16 is the upper half
      std::memcpy(&bytes[i], reinterpret_cast<const char*>(&number) + 4 - width, width);
  }
}

class LinearTimer {
 public:
  LinearTimer(const std::vector<std::shared_ptr<const PackedWeights>>& weights, const LinearTiming& timing)
      : timing_(timing), pool_(timing.threads), n_(weights[0]->n()), bytes_(timing.rows * row_bytes(*weights[0])), x_(bytes_),
        y_(timing.rows * n_ * (timing.quantized ? 1 : 4)), other_(kOtherBytes * timing.threads / 8), seen_(timing.threads) {
    std::mt19937 random(20);
    for (auto& set : sets_) {
      set.resize(bytes_);
      fill(set, weights[0]->type(), random);
    }
    LinearEpilogue epilogue;
    epilogue.scale.assign(n_, 1e-5f);
    epilogue.bias.assign(n_, 0.1f);
    epilogue.x_zero_point = 128;
    epilogue.activation = timing.activation;
    epilogue.output = timing.quantized ? Stored::u8 : Stored::f32;
    epilogue.inverse_scale.assign(n_, 50.0f);
    epilogue.y_zero_point = 128;
    for (const auto& w : weights) layers_.emplace_back(w, epilogue);
  }

  double once(size_t layer, int repeat) {
    sweep();
    std::memcpy(x_.data(), sets_[repeat % kActivationSets].data(), bytes_);
    const LinearBuffers buffers{x_.data(), nullptr, y_.data()};
    const auto begin = std::chrono::steady_clock::now();
    run_layer(pool_, layers_[layer], timing_.rows, buffers);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

 private:
  // Each thread reads its own other data, which also wakes it, as the step before would.
  void sweep() {
    const int64_t words = kOtherBytes / 8;
    pool_.run(timing_.threads, [&](int64_t unit, int thread) {
      int64_t sum = 0;
      for (int64_t i = unit * words; i < (unit + 1) * words; i += 8) sum += other_[i];
      seen_[thread] += sum;
    });
  }

  LinearTiming timing_;
  ThreadPool pool_;
  int64_t n_, bytes_;
  AlignedBuffer x_, y_;
  std::vector<int64_t> other_, seen_;
  std::vector<uint8_t> sets_[kActivationSets];
  std::vector<LinearLayer> layers_;
};

}  // namespace

void run_linear(std::shared_ptr<const PackedWeights> weights, const LinearEpilogue& epilogue, int64_t rows, const void* x,
                const void* residual, void* y, int threads) {
  check(rows > 0, "Expected at least one row, found " + std::to_string(rows) + ".");
  const LinearLayer layer(std::move(weights), epilogue);
  const int64_t bytes = rows * row_bytes(layer.weights());
  const AlignedBuffer padded(bytes);
  std::memcpy(padded.data(), x, bytes);
  ThreadPool pool(threads);
  run_layer(pool, layer, rows, {padded.data(), residual, y});
}

std::vector<std::vector<double>> time_linear(const std::vector<std::shared_ptr<const PackedWeights>>& weights,
                                             const LinearTiming& timing) {
  check(!weights.empty(), "Expected at least one set of weights to time, found none.");
  check(timing.rows > 0 && timing.repeats > 0, "Expected rows and repeats of at least 1, found " + std::to_string(timing.rows) +
                                                   " and " + std::to_string(timing.repeats) + ".");
  for (const auto& w : weights)
    check(w->n() == weights[0]->n() && w->k() == weights[0]->k() && w->type() == weights[0]->type(),
          "Expected weights of one shape and type to time against each other.");
  LinearTimer timer(weights, timing);
  std::vector<std::vector<double>> seconds(weights.size(), std::vector<double>(timing.repeats));
  for (size_t w = 0; w < weights.size(); ++w) timer.once(w, 0);  // first touch of weights and pages
  for (int r = 0; r < timing.repeats; ++r)
    for (size_t w = 0; w < weights.size(); ++w) seconds[w][r] = timer.once(w, r);
  return seconds;
}

}  // namespace openwork
