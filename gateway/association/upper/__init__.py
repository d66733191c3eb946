"""The DICOM upper layer (PS3.8): connections, PDUs, presentation contexts, the states of an association."""
