"""Support that tests share: real peers as context managers, test data, comparison of instances, raw DICOM for peers that misbehave.

Everything binds to 127.0.0.1 on free ports, lives in temporary folders and ends with its context manager, the process
group included. Waits end on an event or at a deadline, never after a fixed time.
"""
