#include "runtime/timing/convolution.h"

#include <cstring>
#include <stdexcept>

#include "runtime/timing/layer_timer.h"

namespace openwork {

namespace {

void check(bool holds, const std::string& sentence) {
  if (!holds) throw std::invalid_argument(sentence);
}

// A layer with a plan, and every thread's scratch.
struct Planned {
  const ConvLayer& layer;
  ConvPlan plan;
  ThreadScratch scratch;

  Planned(const ConvLayer& layer_, const ImageSize& size, int threads)
      : layer(layer_), plan(layer.plan(size.batch, size.height, size.width, threads)),
        scratch(threads, plan.scratch_bytes()) {}

  void run(ThreadPool& pool, const LinearBuffers& buffers) const {
    pool.run(plan.partition.units(), [&](int64_t unit, int thread) {
      layer.run(plan, buffers, unit, scratch.of(thread));
    });
  }
};

void check_timing(const std::vector<std::shared_ptr<const PackedWeights>>& weights, const ConvTiming& timing) {
  check(!weights.empty(), "Expected at least one set of weights to time, found none.");
  check(timing.repeats > 0, "Expected repeats of at least 1, found " + std::to_string(timing.repeats) + ".");
  const WeightShape& first = weights[0]->shape();
  for (const auto& w : weights) {
    const WeightShape& s = w->shape();
    check(s.n == first.n && s.channels == first.channels && s.kernel_h == first.kernel_h && s.kernel_w == first.kernel_w &&
              s.groups == first.groups && w->type() == weights[0]->type(),
          "Expected weights of one shape and type to time against each other.");
  }
}

}  // namespace

void run_convolution(const ConvLayer& layer, const ImageSize& size, const LinearBuffers& buffers, int threads) {
  const Planned planned(layer, size, threads);
  const int64_t bytes =
      size.batch * size.height * size.width * layer.shape().channels * element_bytes(layer.weights().type());
  const AlignedBuffer padded(bytes);
  std::memcpy(padded.data(), buffers.x, static_cast<size_t>(bytes));
  ThreadPool pool(threads);
  planned.run(pool, {padded.data(), buffers.residual, buffers.y});
}

std::vector<std::vector<double>> time_convolution(const std::vector<std::shared_ptr<const PackedWeights>>& weights,
                                                  const ConvTiming& timing) {
  check_timing(weights, timing);
  const LinearEpilogue epilogue = timing_epilogue(weights[0]->n(), timing.activation, timing.quantized);
  std::vector<ConvLayer> layers;
  layers.reserve(weights.size());
  for (const auto& w : weights) layers.emplace_back(w, epilogue, timing.attributes);
  std::vector<std::unique_ptr<Planned>> planned;
  for (const auto& layer : layers) planned.push_back(std::make_unique<Planned>(layer, timing.size, timing.threads));
  const ConvGeometry geometry =
      make_geometry(layers[0].shape(), timing.size.batch, timing.size.height, timing.size.width);
  LayerTimer timer(timing.threads, weights[0]->type(), geometry.pixels() * geometry.shape.channels,
                   geometry.rows() * geometry.shape.n * (timing.quantized ? 1 : 4));
  const auto once = [&](size_t w, int repeat) {
    return timer.once(repeat, [&](const LinearBuffers& buffers) { planned[w]->run(timer.pool(), buffers); });
  };
  return time_in_turns(weights.size(), timing.repeats, once);
}

}  // namespace openwork
