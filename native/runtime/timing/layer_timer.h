// Times single layers as a network would run them: the weights come from the third level of cache, the activations from the
// second.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "runtime/buffer.h"
#include "runtime/linear/layer.h"
#include "runtime/thread_pool.h"

namespace openwork {

class LayerTimer {
 public:
  // A layer from `x_elements` of `type` to `y_bytes`. Throws std::invalid_argument for a number of threads out of range.
  LayerTimer(int threads, Type type, int64_t x_elements, int64_t y_bytes);

  ThreadPool& pool() { return pool_; }
  // Seconds of f(buffers), on one of a few sets of random activations.
  template <class F>
  double once(int repeat, const F& f) {
    sweep();
    fill(sets_[static_cast<size_t>(repeat) % sets_.size()]);
    const auto begin = std::chrono::steady_clock::now();
    f(LinearBuffers{x_.data(), nullptr, y_.data()});
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

 private:
  // Each thread reads its own other data, which also wakes it, as the step before would.
  void sweep();
  // Each thread writes its part of the activations, as it would in the step before: they lie in its own cache.
  void fill(const std::vector<uint8_t>& set);

  ThreadPool pool_;
  AlignedBuffer x_, y_;
  std::vector<std::vector<uint8_t>> sets_;
  std::vector<int64_t> other_, seen_;
};

// What activations are made for weights that take turns: of their one type, or where `floats` is set of f32, which weights of
// BF16 round. Throws std::invalid_argument where the weights' types are others.
Type activation_type(const std::vector<std::shared_ptr<const PackedWeights>>& weights, bool floats);

// An epilogue of plausible numbers for n output channels.
LinearEpilogue timing_epilogue(int64_t n, const ActivationFunction& activation, bool quantized);

// Seconds [count][repeats] of once(which, repeat), all of them in turn: a change of the machine's clock meets each.
template <class Once>
std::vector<std::vector<double>> time_in_turns(size_t count, int repeats, const Once& once) {
  std::vector<std::vector<double>> seconds(count);
  for (size_t w = 0; w < count; ++w) once(w, 0);  // first touch of weights and pages
  for (int r = 0; r < repeats; ++r)
    for (size_t w = 0; w < count; ++w) seconds[w].push_back(once(w, r));
  return seconds;
}

}  // namespace openwork
