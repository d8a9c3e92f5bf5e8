// A simulated accelerator: a PyTorch device whose memory is counted RAM and whose kernels are the CPU's.
//
// It shows what a CPU cannot: which tensors are on which card, how much a card holds, what crosses, and who waits. So it
//   - counts what each card holds and held at most, and refuses past a limit as CUDA does (torch.OutOfMemoryError);
//   - refuses operators that mix a card with another card or with CPU tensors other than scalars;
//   - fills new memory with NaN, so that a number shows that was read before anybody wrote it;
//   - carries out copies of a side stream when that stream is waited for and not before, so that who forgets to wait
//     reads NaN;
//   - counts what crosses and what waits, and tells a Python function about each, which can look where it is.
//
// In a dry run large tensors have shapes and bytes but no values, and take no RAM: real sizes run in seconds.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_cpu_dispatch.h>
#include <ATen/ops/copy_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_cpu_dispatch.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/extension.h>
#include <torch/library.h>

#include <cstring>
#include <map>
#include <string>
#include <unordered_set>
#include <vector>

namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;
constexpr int kMaxCards = 4;
constexpr size_t kHeader = 64;       // bytes before each block: its size and its card
constexpr size_t kSmall = 1 << 16;   // bytes: tensors up to here keep their values in a dry run
constexpr double kDryValue = 0.04;   // of what is small, and of pictures, in a dry run

struct Card {
  std::atomic<int64_t> live{0}, peak{0}, limit{INT64_MAX}, received{0}, sent{0}, waits{0}, refused{0};
};

Card cards[kMaxCards];
int card_count = 1;
bool dry = false;
std::atomic<int64_t> pinned{0};
py::object* listener = nullptr;   // called with what happens ("item", "copy", "up", "down") and its bytes
py::object* make_room = nullptr;  // asked for bytes before an allocation is refused, as ComfyUI's dynamic VRAM is
thread_local c10::DeviceIndex current_card = 0;
thread_local c10::StreamId current_stream = 0;
thread_local int within_fallback = 0;  // the copies of a fallback are none of the program's

c10::DeviceIndex index_of(c10::Device device) { return device.has_index() ? device.index() : current_card; }
c10::Device here() { return c10::Device(kType, current_card); }

// --- memory ---

struct Block {
  size_t bytes;
  int card;
};

void release(void* base) {
  if (base == nullptr) return;
  auto* block = static_cast<Block*>(base);
  cards[block->card].live.fetch_sub(block->bytes);
  c10::free_cpu(base);
}

bool claim(Card& card, int64_t bytes) {
  const int64_t now = card.live.fetch_add(bytes) + bytes;
  if (now > card.limit.load()) {
    card.live.fetch_sub(bytes);
    return false;
  }
  int64_t before = card.peak.load();
  while (now > before && !card.peak.compare_exchange_weak(before, now)) {
  }
  return true;
}

struct CardMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &release, here()};
    Card& card = cards[current_card];
    bool fits = claim(card, bytes);
    if (!fits && make_room != nullptr) {
      py::gil_scoped_acquire gil;
      (*make_room)(card.live.load() + static_cast<int64_t>(bytes) - card.limit.load());
      fits = claim(card, bytes);
    }
    if (!fits) {
      ++card.refused;
      TORCH_CHECK_WITH(OutOfMemoryError, false, "out of memory on the simulated card ", int(current_card),
                       ": tried to allocate ", bytes, " bytes beside ", card.live.load(), " of ", card.limit.load());
    }
    char* base = static_cast<char*>(c10::alloc_cpu(bytes + kHeader));
    *reinterpret_cast<Block*>(base) = {bytes, current_card};
    if (!dry) std::memset(base + kHeader, 0xFF, bytes);  // NaN in every floating type
    return {base + kHeader, base, &release, here()};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
};

CardMemory card_memory;
REGISTER_ALLOCATOR(kType, &card_memory);

std::map<const char*, size_t> pinned_blocks;
std::mutex pinned_lock;

void release_pinned(void* base) {
  if (base == nullptr) return;
  const std::lock_guard<std::mutex> lock(pinned_lock);
  pinned -= pinned_blocks[static_cast<char*>(base)];
  pinned_blocks.erase(static_cast<char*>(base));
  c10::free_cpu(base);
}

struct PinnedMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    char* base = bytes == 0 ? nullptr : static_cast<char*>(c10::alloc_cpu(bytes));
    if (base != nullptr) {
      const std::lock_guard<std::mutex> lock(pinned_lock);
      pinned_blocks[base] = bytes;
      pinned += bytes;
    }
    return {base, base, &release_pinned, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release_pinned; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
};

PinnedMemory pinned_memory;

bool is_pinned(const void* data) {
  const std::lock_guard<std::mutex> lock(pinned_lock);
  auto after = pinned_blocks.upper_bound(static_cast<const char*>(data));
  if (after == pinned_blocks.begin()) return false;
  const auto& [base, bytes] = *std::prev(after);
  return static_cast<const char*>(data) < base + bytes;
}

// --- cards and streams, as torch asks for them ---

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = kType;
  Guard() = default;
  explicit Guard(c10::DeviceType) {}
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = here();
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override { return here(); }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(index_of(device) < card_count, "there is no simulated card ", int(index_of(device)));
    current_card = index_of(device);
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current_card = index_of(device); }
  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::UNSAFE, c10::Device(kType, index_of(device)), current_stream);
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, c10::Device(kType, index_of(device)));
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    const c10::Stream before = getStream(stream.device());
    current_stream = stream.id();
    return before;
  }
  c10::DeviceIndex deviceCount() const noexcept override { return card_count; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return card_count; }
  c10::DeviceIndex getCurrentDevice() const override { return current_card; }
  void setCurrentDevice(c10::DeviceIndex index) const override { current_card = index; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override { return std::exchange(current_card, index); }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override { return exchangeDevice(index); }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
  at::Device getDeviceFromPtr(void*) const override { return here(); }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    const c10::OptionalDeviceGuard guard(storage.device());
    c10::DataPtr fresh = card_memory.allocate(bytes);
    if (bytes != 0 && !dry) std::memcpy(fresh.get(), storage.data(), std::min(bytes, storage.nbytes()));
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(fresh));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
};

// --- tensors ---

at::Tensor as_cpu(const at::Tensor& x) {  // the same memory, for the CPU's kernels
  return at::from_blob(x.numel() ? x.data_ptr() : nullptr, x.sizes(), x.strides(), x.options().device(at::kCPU));
}

at::Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(size, &card_memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(size, stride, &card_memory,
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
}

void tell(const char* what, int64_t bytes) {
  if (listener == nullptr) return;
  py::gil_scoped_acquire gil;
  (*listener)(what, bytes);
}

void waited(const at::Tensor& x, const char* what) {
  if (within_fallback) return;
  ++cards[x.device().index()].waits;
  tell(what, x.nbytes());
}

// What crosses to or from a card, in the type that it arrives in: CUDA converts before it sends.
void crossed(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  if (within_fallback || from.device() == to.device()) return;
  const int64_t bytes = to.nbytes();
  if (!from.is_cpu()) cards[from.device().index()].sent += bytes;
  if (!to.is_cpu()) cards[to.device().index()].received += bytes;
  tell(to.is_cpu() ? "down" : "up", bytes);
  if (to.is_cpu() && !non_blocking) waited(from, "copy");
}

struct Copy {
  c10::StreamId stream;
  at::Tensor from, to;
};
std::vector<Copy> in_flight;
std::mutex in_flight_lock;

void carry_out(const at::Tensor& from, const at::Tensor& to) {
  if (dry && from.nbytes() > kSmall) {
    if (to.is_cpu() && to.scalar_type() == at::kFloat) to.fill_(kDryValue);
    return;
  }
  at::Tensor target = to.is_cpu() ? to : as_cpu(to);
  at::native::copy_(target, from.is_cpu() ? from : as_cpu(from), false);
}

// All copies of a stream that are still in flight: whoever waits for the stream calls this.
void arrive(c10::StreamId stream) {
  std::vector<Copy> arrived;
  {
    const std::lock_guard<std::mutex> lock(in_flight_lock);
    auto others = std::stable_partition(in_flight.begin(), in_flight.end(),
                                        [&](const Copy& copy) { return copy.stream != stream; });
    arrived.assign(others, in_flight.end());
    in_flight.erase(others, in_flight.end());
  }
  for (const Copy& copy : arrived) carry_out(copy.from, copy.to);
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  crossed(from, to, non_blocking);
  if (non_blocking && current_stream != 0) {
    const std::lock_guard<std::mutex> lock(in_flight_lock);
    in_flight.push_back({current_stream, from, to});
  } else {
    carry_out(from, to);
  }
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  at::native::resize_(to, from.sizes(), std::nullopt);
  return copy_from(from, to, false);
}

at::Scalar item(const at::Tensor& self) {
  waited(self, "item");
  return as_cpu(self).item();
}

at::Tensor as_strided(const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                      std::optional<c10::SymInt> offset) {
  return at::cpu::as_strided_symint(self, size, stride, offset);
}
at::Tensor view(const at::Tensor& self, c10::SymIntArrayRef size) {
  return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size));
}
at::Tensor reshape_alias(const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::_reshape_alias(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}
at::Tensor unfold(const at::Tensor& self, int64_t dim, int64_t size, int64_t step) {
  return at::native::unfold(self, dim, size, step);
}
const at::Tensor& resize(const at::Tensor& self, c10::SymIntArrayRef size, std::optional<at::MemoryFormat> format) {
  return at::native::resize_(self, C10_AS_INTARRAYREF_SLOW(size), format);
}
at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& source) { return at::native::set_tensor_(self, source); }
at::Tensor& set_storage(at::Tensor& self, at::Storage source) { return at::native::set_(self, source); }
at::Tensor& set_storage_offset(at::Tensor& self, at::Storage storage, int64_t offset, c10::IntArrayRef size,
                               c10::IntArrayRef stride) {
  return at::cpu::set_(self, storage, offset, size, stride);
}

// --- every other operator: the CPU's kernel, or in a dry run the meta device's shapes ---

using Stack = torch::jit::Stack;

template <typename Look>
void each_argument(const c10::OperatorHandle& op, const Stack& stack, Look look) {
  for (size_t i = stack.size() - op.schema().arguments().size(); i < stack.size(); ++i) {
    const c10::IValue& value = stack[i];
    if (value.isTensor()) look(value.toTensor());
    else if (value.isTensorList()) for (const at::Tensor& x : value.toTensorVector()) look(x);
  }
}

// The card of the operator's tensors; raises where they lie on several devices.
c10::Device device_of(const c10::OperatorHandle& op, const Stack& stack) {
  static const std::unordered_set<std::string> takes_indices = {  // CUDA moves indices itself
      "aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::index_put"};
  const bool indices_anywhere = takes_indices.count(op.schema().operator_name().name) != 0;
  std::optional<c10::Device> card;
  bool mixed = false, on_cpu = false;
  each_argument(op, stack, [&](const at::Tensor& x) {
    if (!x.defined()) return;
    if (x.device().type() == kType) {
      mixed |= card.has_value() && *card != x.device();
      card = x.device();
    } else {
      on_cpu |= x.is_cpu() && x.dim() > 0 && !indices_anywhere;
    }
  });
  TORCH_CHECK(!mixed && !(card && on_cpu), "Expected all tensors to be on the same device, but found at least two, ",
              *card, " and ", mixed ? "another card" : "cpu", " (", op.schema().operator_name(), ")");
  for (size_t i = stack.size() - op.schema().arguments().size(); i < stack.size() && !card; ++i)
    if (stack[i].isDevice()) card = c10::Device(kType, index_of(stack[i].toDevice()));
  return card.value_or(here());
}

bool is_small(const c10::OperatorHandle& op, const Stack& stack) {
  size_t bytes = 0;
  each_argument(op, stack, [&](const at::Tensor& x) { bytes += x.defined() ? x.nbytes() : 0; });
  return bytes <= kSmall;
}

class DryCall {
 public:
  DryCall(const c10::OperatorHandle& op, Stack* stack) : op(op), stack(stack) {}

  void run() {
    const size_t arguments = op.schema().arguments().size(), returns = op.schema().returns().size();
    for (size_t i = stack->size() - arguments; i < stack->size(); ++i) (*stack)[i] = to_meta((*stack)[i]);
    op.callBoxed(stack);
    for (size_t i = stack->size() - returns; i < stack->size(); ++i) (*stack)[i] = to_card((*stack)[i]);
  }

 private:
  at::Tensor to_meta(const at::Tensor& x) {
    if (!x.defined() || x.is_meta() || x.unsafeGetTensorImpl()->is_wrapped_number()) return x;
    twins.emplace_back(at::empty_strided(x.sizes(), x.strides(), x.options().device(at::kMeta)), x);
    return twins.back().first;
  }

  c10::IValue to_meta(const c10::IValue& value) {
    if (value.isTensor()) return to_meta(value.toTensor());
    if (value.isDevice() && value.toDevice().type() == kType) return c10::Device(c10::kMeta);
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& x : value.toTensorVector()) list.push_back(to_meta(x));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& x : value.toOptionalTensorList())
        list.push_back(x.has_value() ? std::optional<at::Tensor>(to_meta(*x)) : std::nullopt);
      return list;
    }
    return value;
  }

  // What was an argument stays that argument; what is new gets memory of the card.
  at::Tensor to_card(const at::Tensor& x) {
    if (!x.defined() || !x.is_meta()) return x;
    for (auto& [meta, original] : twins)
      if (x.is_same(meta)) {
        if (original.sizes() != x.sizes()) at::native::resize_(original, x.sizes(), std::nullopt);
        return original;
      }
    at::Tensor out = at::empty_strided(x.sizes(), x.strides(), x.options().device(here()));
    if (out.nbytes() <= kSmall && out.numel()) {
      const auto type = out.scalar_type();
      as_cpu(out).fill_(at::isFloatingType(type) ? kDryValue : type == at::kBool ? 1.0 : 0.0);
    }
    return out;
  }

  c10::IValue to_card(const c10::IValue& value) {
    if (value.isTensor()) return to_card(value.toTensor());
    if (!value.isTensorList()) return value;
    c10::List<at::Tensor> list;
    for (const at::Tensor& x : value.toTensorVector()) list.push_back(to_card(x));
    return list;
  }

  const c10::OperatorHandle& op;
  Stack* stack;
  std::vector<std::pair<at::Tensor, at::Tensor>> twins;  // (meta, the argument itself)
};

void fallback(const c10::OperatorHandle& op, Stack* stack) {
  const c10::DeviceGuard guard(device_of(op, *stack));
  if (dry && !is_small(op, *stack)) return DryCall(op, stack).run();
  ++within_fallback;
  try {
    at::native::cpu_fallback(op, stack);
  } catch (...) {
    --within_fallback;
    throw;
  }
  --within_fallback;
}

#define BOXED torch::CppFunction::makeFromBoxedFunction<&fallback>()

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(BOXED); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", item);
  m.impl("as_strided", as_strided);
  m.impl("view", view);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("unfold", unfold);
  m.impl("resize_", resize);
  m.impl("set_.source_Tensor", set_tensor);
  m.impl("set_.source_Storage", set_storage);
  m.impl("set_.source_Storage_storage_offset", set_storage_offset);
  // One kernel on an accelerator; without these torch takes them apart, or the memory of the parts would count.
  for (const char* name : {"convolution", "linear", "scaled_dot_product_attention", "native_group_norm",
                           "native_layer_norm", "native_batch_norm"})
    m.impl(name, BOXED);
}

py::object* kept(const py::object& given) { return given.is_none() ? nullptr : new py::object(given); }

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("register", [](int count) {
    static Hooks hooks;
    TORCH_CHECK(count >= 1 && count <= kMaxCards, "expected 1 to ", kMaxCards, " cards but got ", count);
    card_count = count;
    at::RegisterPrivateUse1HooksInterface(&hooks);
  });
  m.def("set_limit", [](int card, int64_t bytes) { cards[card].limit = bytes; });
  m.def("set_dry", [](bool on) { dry = on; });
  m.def("set_listener", [](const py::object& call) { listener = kept(call); });
  m.def("set_make_room", [](const py::object& call) { make_room = kept(call); });
  m.def("set_card", [](int card) { current_card = card; });
  m.def("current_card", [] { return int(current_card); });
  m.def("card_count", [] { return card_count; });
  m.def("exchange_stream", [](int64_t stream) { return std::exchange(current_stream, stream); });
  m.def("arrive", &arrive);
  m.def("pinned", [] { return pinned.load(); });
  m.def("reset_peak", [] { for (Card& card : cards) card.peak = card.live.load(); });
  m.def("counters", [](int index) {
    const Card& card = cards[index];
    return std::map<std::string, int64_t>{{"live", card.live}, {"peak", card.peak}, {"limit", card.limit},
                                          {"received", card.received}, {"sent", card.sent}, {"waits", card.waits},
                                          {"refused", card.refused}};
  });
}
