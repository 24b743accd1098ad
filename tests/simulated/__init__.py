"""A second device without hardware, and what must hold on it: the rules of an accelerator, in the default tests.

`device.py` registers the device ``sim`` in Python (torch's PrivateUse1). A tensor on it holds real numbers, so code
that looks at values runs as it would, and results are compared with the processor's. It is strict where accelerators
are, and where the worst of them are:

* tensors of two devices in one operation: `AssertionError` (numbers of the processor without dimensions are allowed,
  as on CUDA);
* a generator of the processor that draws on the device: `AssertionError`;
* float64 on the device: `AssertionError`, as MPS has none;
* each wait of the host for the device, and each copy from the host to the device, is counted: `device.counted()`.

The backend stays registered in its process and makes ``torch.accelerator.is_available()`` true, which is part of the
test: all of this runs in processes of its own, started by `test_simulated_pictures.py` and its neighbour.

Adding a case
    Write a test in a file ``case_*.py`` of this folder, as any other pytest test. The fixtures of `conftest.py` give a
    fresh tiny pipeline (`fresh`), one on the device (`there`), and the processor's answer (`same_as_on_the_processor`).
    Do not move shared components: `tiny_components()` belongs to all tests. `commands.py` runs the command ``supir``
    with the device present, in a process (workers that it starts have the device too).

Running them::

    pytest tests/simulated                                          # as in the default tests: one subprocess
    pytest tests/simulated -o python_files='case_*.py' -k tiles     # in this process, to debug

`put_back.py` puts faults of the past back, one at a time, and `test_simulated_faults.py` (slow) shows which case fails.

What no simulation sees: kernels, the allocator, speed, and the rounding of real accelerators.
"""
