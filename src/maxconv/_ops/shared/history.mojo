"""What came before a causal convolution, and which of its samples belong together."""

from std.builtin.device_passable import DevicePassable, DeviceTypeEncoder

from .layer_geometry import LayerGeometry


@fieldwise_init
struct History[dtype: DType](DevicePassable, TrivialRegisterPassable):
    """What came before a causal convolution, and which of its samples belong together.

    Parameters:
        dtype: Element type of the state.
    """

    var state: Pointer[Scalar[Self.dtype], MutUntrackedOrigin]
    """The K - 1 samples before each channel, shape (N, C, K - 1); read only if `has_state`."""
    var has_state: Bool
    """Whether there is a state."""
    var numbers: Pointer[Int32, MutUntrackedOrigin]
    """The sequence that each sample belongs to, shape (N, L), negative: to none; read only if `has_numbers`."""
    var has_numbers: Bool
    """Whether the samples are numbered."""

    comptime device_type: AnyType = Self
    """What kernels on a GPU receive: the same."""

    def _to_device_type(self, mut encoder: Some[DeviceTypeEncoder], target: MutOpaquePointer[_]):
        encoder.encode(self, target)

    @staticmethod
    def get_type_name() -> String:
        """Names the type in errors of launches.

        Returns:
            The name.
        """
        return "History"

    @always_inline
    def sample(
        self, x: Pointer[Scalar[Self.dtype], MutAnyOrigin], geometry: LayerGeometry, channel: Int, position: Int
    ) -> Scalar[Self.dtype]:
        """Reads a sample of a channel or of its state.

        Args:
            x: All signals.
            geometry: Sizes and shifts.
            channel: Counted over signals and channels.
            position: Any integer from -(K - 1) on if there is a state.

        Returns:
            The sample; 0 where there is none.
        """
        if 0 <= position and position < geometry.length:
            return x[unsafe_offset=channel * geometry.length + position]
        if self.has_state and position < 0:
            return self.state[unsafe_offset=(channel + 1) * (geometry.taps - 1) + position]
        return 0

    @always_inline
    def exists(self, geometry: LayerGeometry, position: Int) -> Bool:
        """Tells whether there is a sample.

        Args:
            geometry: Sizes and shifts.
            position: Any integer from -(K - 1) on if there is a state.

        Returns:
            True within x, and in the state.
        """
        return position < geometry.length and (position >= 0 or self.has_state)
