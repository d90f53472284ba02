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

// Of each input whether some step reads behind its end, which the caller's memory need not allow, or reads what it checked.
std::vector<bool> find_copied(const Program& program) {
  std::vector<bool> copied(program.inputs().size(), false);
  for (const Step& step : program.steps())
    for (const Read& read : step.reads) {
      const auto& inputs = program.inputs();
      const auto at = std::find(inputs.begin(), inputs.end(), program.home(read.value)) - inputs.begin();
      if ((read.ahead || read.checked) && at < static_cast<int64_t>(copied.size())) copied[at] = true;
    }
  return copied;
}

bool aligned(const InputTensor& input) { return reinterpret_cast<uintptr_t>(input.data) % dtype_bytes(input.dtype) == 0; }

}  // namespace

Context::Context(std::shared_ptr<const Program> program, int threads, int max_plans)
    : program_(finished(std::move(program))), pool_(threads), plans_(*program_, threads, max_plans),
      slice_plans_(*program_, 1, max_plans), sliced_(has_batch(*program_)), trimming_(find_trimming(*program_)), copied_(find_copied(*program_)),
      copies_(copied_.size()), slice_arenas_(threads), seconds_(program_->steps().size(), 0.0),
      slice_seconds_(threads, seconds_) {}

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

std::vector<InputTensor> Context::held(const Plan& plan, const std::vector<InputTensor>& inputs) {
  std::vector<InputTensor> held = inputs;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!copied_[i] && aligned(inputs[i])) continue;
    const int64_t bytes = plan.sizes.elements(program_->inputs()[i]) * dtype_bytes(inputs[i].dtype);
    grow(copies_[i], bytes);
    std::memcpy(copies_[i].data(), inputs[i].data, static_cast<size_t>(bytes));
    held[i].data = copies_[i].data();
  }
  return held;
}

void Context::check_contents(const Plan& plan, const Operands& operands) const {
  const Buffers buffers = place(plan, nullptr, operands);
  for (const Work& work : plan.work)
    if (work.check) work.check(buffers);
}

Operands Context::from(const Operands& operands, const Plan& plan, int64_t begin) const {
  Operands moved = operands;
  for (size_t i = 0; i < moved.inputs.size(); ++i) moved.inputs[i] += begin * row_bytes(plan, program_->inputs()[i]);
  for (size_t i = 0; i < moved.outputs.size(); ++i) moved.outputs[i] += begin * row_bytes(plan, program_->outputs()[i]);
  return moved;
}

int64_t Context::row_bytes(const Plan& plan, int value) const {
  const auto v = static_cast<size_t>(value);
  return plan.sizes.elements(value) / plan.sizes.dims[v].front() * dtype_bytes(program_->values()[v].dtype);
}

Buffers Context::place(const Plan& plan, std::byte* arena, const Operands& operands) const {
  Buffers buffers;
  for (const int64_t offset : plan.offset) buffers.values.push_back(offset == kOutside || !arena ? nullptr : arena + offset);
  for (size_t i = 0; i < operands.outputs.size(); ++i) buffers.values[program_->outputs()[i]] = operands.outputs[i];
  // No step writes an input.
  for (size_t i = 0; i < operands.inputs.size(); ++i)
    buffers.values[program_->inputs()[i]] = const_cast<std::byte*>(operands.inputs[i]);
  for (int v = 0; v < static_cast<int>(buffers.values.size()); ++v) {
    const Home& home = program_->home_of(v);
    auto* place = static_cast<std::byte*>(buffers.values[home.value]);
    buffers.values[v] = place ? place + home.offset : nullptr;
  }
  buffers.scratch = arena ? arena + plan.scratch_offset : nullptr;
  buffers.scratch_stride = plan.scratch_stride;
  return buffers;
}

void Context::run_step(const Work& work, const Buffers& buffers) {
  pool_.run((work.units + work.chunk - 1) / work.chunk, [&](int64_t i, int thread) {
    work.run(buffers, {i * work.chunk, std::min(work.units, (i + 1) * work.chunk), thread});
  });
}

template <class Run>
void Context::run_steps(const Plan& plan, std::vector<double>& seconds, const Run& run) const {
  using Clock = std::chrono::steady_clock;
  for (size_t i = 0; i < plan.work.size(); ++i) {
    const auto begin = profiling_ ? Clock::now() : Clock::time_point{};
    run(plan.work[i]);
    if (profiling_) seconds[i] += std::chrono::duration<double>(Clock::now() - begin).count();
  }
}

void Context::run_whole(const Plan& plan, const Operands& operands) {
  grow(arena_, plan.arena_bytes);
  const Buffers buffers = place(plan, arena_.data(), operands);
  run_steps(plan, seconds_, [&](const Work& work) { run_step(work, buffers); });
}

void Context::run_slice(const Plan& plan, const Operands& operands, int thread) {
  const Buffers buffers = place(plan, slice_arenas_[thread].data(), operands);
  run_steps(plan, slice_seconds_[thread], [&](const Work& work) { work.run(buffers, {0, work.units, 0}); });
}

void Context::run_slices(const Slicing& slicing, RunSizes sizes, const Operands& operands) {
  sizes.batch = slicing.size;
  const auto plan = slice_plans_.get(sizes);
  for (auto& arena : slice_arenas_) grow(arena, plan->arena_bytes);
  pool_.run(slicing.count, [&](int64_t i, int thread) {
    run_slice(*plan, from(operands, *plan, i * slicing.size), thread);
  });
}

void Context::run_rest(const Plan& plan, int64_t done, RunSizes sizes, const Operands& operands) {
  if (done == 0) return run_whole(plan, operands);
  sizes.batch = plan.sizes.dims.front().front() - done;
  if (sizes.batch == 0) return;
  run_whole(*plans_.get(sizes), from(operands, plan, done));
}

std::vector<OutputTensor> Context::run(const std::vector<InputTensor>& inputs) {
  const std::lock_guard lock(mutex_);
  check_inputs(inputs);
  std::vector<std::vector<int64_t>> shapes;
  for (const auto& input : inputs) shapes.push_back(input.dims);
  const RunSizes sizes{free_sizes(*program_, shapes)};
  const auto plan = plans_.get(sizes);
  auto outputs = make_outputs(*program_, *plan);
  Operands operands;
  for (const InputTensor& input : held(*plan, inputs)) operands.inputs.push_back(static_cast<const std::byte*>(input.data));
  for (const OutputTensor& output : outputs) operands.outputs.push_back(output.buffer.data());
  check_contents(*plan, operands);
  if (!run_trimmed(*plan, sizes, operands)) run_all(*plan, sizes, operands);
  if (profiling_) ++profiled_;
  return outputs;
}

void Context::run_all(const Plan& plan, const RunSizes& sizes, const Operands& operands) {
  const Slicing slicing = sliced_ ? slice_batch(*program_, plan.sizes) : Slicing{};
  if (slicing.count > 0) run_slices(slicing, sizes, operands);
  run_rest(plan, slicing.covered(), sizes, operands);
}

void Context::enable_profile(bool enabled) {
  const std::lock_guard lock(mutex_);
  profiling_ = enabled;
  if (!enabled) return;
  seconds_.assign(program_->steps().size(), 0.0);
  slice_seconds_.assign(pool_.threads(), seconds_);
  profiled_ = 0;
}

std::vector<StepProfile> Context::profile() {
  const std::lock_guard lock(mutex_);
  std::vector<StepProfile> rows;
  for (size_t i = 0; i < program_->steps().size(); ++i) {
    double slices = 0;
    for (const auto& thread : slice_seconds_) slices += thread[i];
    rows.push_back({program_->steps()[i].name, seconds_[i] + slices / pool_.threads(), profiled_});
  }
  return rows;
}

}  // namespace openwork
