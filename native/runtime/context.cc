#include "runtime/context.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>

namespace openwork {

namespace {

std::shared_ptr<const Program> finished(std::shared_ptr<const Program> program) {
  if (!program || !program->finished()) throw std::invalid_argument("Expected a finished program; call finish() first.");
  return program;
}

std::vector<OutputTensor> make_outputs(const Program& program, const Plan& plan) {
  std::vector<OutputTensor> outputs;
  for (const int v : program.outputs()) {
    const DType dtype = program.values()[v].dtype;
    outputs.push_back({dtype, plan.sizes.dims[v], AlignedBuffer(plan.sizes.elements(v) * dtype_bytes(dtype))});
  }
  return outputs;
}

// Kernels read behind the end of u8 values, and float and integer ones in whole elements.
bool usable_in_place(const InputTensor& input) {
  return input.dtype != DType::u8 && reinterpret_cast<uintptr_t>(input.data) % dtype_bytes(input.dtype) == 0;
}

}  // namespace

Context::Context(std::shared_ptr<const Program> program, int threads, int max_plans)
    : program_(finished(std::move(program))), pool_(threads), plans_(*program_, threads, max_plans) {
  for (const Step& step : program_->steps()) profile_.push_back({step.name, 0, 0});
}

void Context::check_inputs(const std::vector<InputTensor>& inputs) const {
  const auto& ids = program_->inputs();
  if (inputs.size() != ids.size())
    throw std::invalid_argument("Expected " + std::to_string(ids.size()) + " inputs, found " + std::to_string(inputs.size()) + ".");
  for (size_t i = 0; i < ids.size(); ++i) {
    const DType expected = program_->values()[ids[i]].dtype;
    if (inputs[i].dtype != expected)
      throw std::invalid_argument("Expected input " + std::to_string(i) + " of type " + dtype_name(expected) + ", found " +
                                  dtype_name(inputs[i].dtype) + ".");
  }
}

Buffers Context::place(const Plan& plan, const std::vector<InputTensor>& inputs, const std::vector<OutputTensor>& outputs) {
  if (arena_.bytes() < plan.arena_bytes) arena_ = AlignedBuffer(plan.arena_bytes);
  Buffers buffers;
  for (const int64_t offset : plan.offset) buffers.values.push_back(offset == kOutside ? nullptr : arena_.data() + offset);
  for (size_t i = 0; i < outputs.size(); ++i) buffers.values[program_->outputs()[i]] = outputs[i].buffer.data();
  for (size_t i = 0; i < inputs.size(); ++i) {
    const int v = program_->inputs()[i];
    if (usable_in_place(inputs[i]))
      buffers.values[v] = const_cast<void*>(inputs[i].data);  // no step writes an input
    else
      std::memcpy(buffers.values[v], inputs[i].data, plan.sizes.elements(v) * dtype_bytes(inputs[i].dtype));
  }
  buffers.scratch = arena_.data() + plan.scratch_offset;
  buffers.scratch_stride = plan.scratch_stride;
  return buffers;
}

void Context::run_step(const Work& work, const Buffers& buffers) {
  pool_.run((work.units + work.chunk - 1) / work.chunk, [&](int64_t i, int thread) {
    work.run(buffers, {i * work.chunk, std::min(work.units, (i + 1) * work.chunk), thread});
  });
}

void Context::run_steps(const Plan& plan, const Buffers& buffers) {
  using Clock = std::chrono::steady_clock;
  for (size_t i = 0; i < plan.work.size(); ++i) {
    const auto begin = profiling_ ? Clock::now() : Clock::time_point{};
    run_step(plan.work[i], buffers);
    if (!profiling_) continue;
    profile_[i].seconds += std::chrono::duration<double>(Clock::now() - begin).count();
    profile_[i].calls += 1;
  }
}

std::vector<OutputTensor> Context::run(const std::vector<InputTensor>& inputs) {
  const std::lock_guard lock(mutex_);
  check_inputs(inputs);
  std::vector<std::vector<int64_t>> shapes;
  for (const auto& input : inputs) shapes.push_back(input.dims);
  const auto plan = plans_.get(free_sizes(*program_, shapes));
  auto outputs = make_outputs(*program_, *plan);
  const Buffers buffers = place(*plan, inputs, outputs);
  for (const Work& work : plan->work)
    if (work.check) work.check(buffers);
  run_steps(*plan, buffers);
  return outputs;
}

void Context::enable_profile(bool enabled) {
  const std::lock_guard lock(mutex_);
  profiling_ = enabled;
  if (!enabled) return;
  for (auto& step : profile_) step = {step.name, 0, 0};
}

std::vector<StepProfile> Context::profile() {
  const std::lock_guard lock(mutex_);
  return profile_;
}

}  // namespace openwork
