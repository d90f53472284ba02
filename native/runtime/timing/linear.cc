#include "runtime/timing/linear.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "runtime/timing/layer_timer.h"

namespace openwork {

namespace {

void run_layer(ThreadPool& pool, const LinearLayer& layer, int64_t rows, const LinearBuffers& buffers,
               const ThreadScratch& scratch) {
  const LinearPartition partition = layer.partition(rows, pool.threads());
  pool.run(partition.units(),
           [&](int64_t unit, int thread) { layer.run(buffers, partition.block(unit), scratch.of(thread)); });
}

void check(bool holds, const std::string& sentence) {
  if (!holds) throw std::invalid_argument(sentence);
}

void check_matrix(const PackedWeights& w) {
  check(w.shape().is_matrix(), "Expected the weights of a matrix, found those of a convolution; use conv() or time_conv().");
}

int64_t row_bytes(const PackedWeights& w) { return w.k() * element_bytes(w.type()); }

void check_timing(const std::vector<std::shared_ptr<const PackedWeights>>& weights, const LinearTiming& timing) {
  check(!weights.empty(), "Expected at least one set of weights to time, found none.");
  check(timing.rows > 0 && timing.repeats > 0, "Expected rows and repeats of at least 1, found " + std::to_string(timing.rows) +
                                                   " and " + std::to_string(timing.repeats) + ".");
  for (const auto& w : weights) {
    check_matrix(*w);
    check(w->n() == weights[0]->n() && w->k() == weights[0]->k(),
          "Expected weights of one shape to time against each other.");
  }
}

}  // namespace

void run_linear(std::shared_ptr<const PackedWeights> weights, const LinearEpilogue& epilogue, int64_t rows, const void* x,
                const void* residual, void* y, int threads) {
  check(rows > 0, "Expected at least one row, found " + std::to_string(rows) + ".");
  check_matrix(*weights);
  const LinearLayer layer(std::move(weights), epilogue);
  const int64_t bytes = rows * row_bytes(layer.weights());
  const AlignedBuffer padded(bytes);
  std::memcpy(padded.data(), x, bytes);
  ThreadPool pool(threads);
  run_layer(pool, layer, rows, {padded.data(), residual, y}, ThreadScratch(threads, layer.scratch_bytes(rows)));
}

std::vector<std::vector<double>> time_linear(const std::vector<std::shared_ptr<const PackedWeights>>& weights,
                                             const LinearTiming& timing) {
  check_timing(weights, timing);
  const Type type = activation_type(weights, timing.floats);
  const int64_t n = weights[0]->n();
  const LinearEpilogue epilogue = timing_epilogue(n, timing.activation, timing.quantized);
  std::vector<LinearLayer> layers;
  for (const auto& w : weights) layers.emplace_back(w, epilogue, w->type() != type);
  int64_t scratch_bytes = 0;
  for (const auto& layer : layers) scratch_bytes = std::max(scratch_bytes, layer.scratch_bytes(timing.rows));
  const ThreadScratch scratch(timing.threads, scratch_bytes);
  LayerTimer timer(timing.threads, type, timing.rows * weights[0]->k(), timing.rows * n * (timing.quantized ? 1 : 4));
  const auto once = [&](size_t w, int repeat) {
    const auto run = [&](const LinearBuffers& buffers) { run_layer(timer.pool(), layers[w], timing.rows, buffers, scratch); };
    return timer.once(repeat, run);
  };
  return time_in_turns(weights.size(), timing.repeats, once);
}

}  // namespace openwork
