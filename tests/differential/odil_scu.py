"""odil as a requestor. Run by Debian's own Python, which has it: ``odil_scu.py PORT echo|store|find …``."""

import sys

import odil

CT, STUDY_ROOT_FIND = odil.registry.CTImageStorage, odil.registry.StudyRootQueryRetrieveInformationModelFind
VERIFICATION = odil.registry.Verification
LITTLE = [odil.registry.ExplicitVRLittleEndian, odil.registry.ImplicitVRLittleEndian]


def associate(port, sop_class):
    association = odil.Association()
    association.set_peer_host("127.0.0.1")
    association.set_peer_port(port)
    context = odil.AssociationParameters.PresentationContext(
        sop_class, LITTLE, odil.AssociationParameters.PresentationContext.Role.SCU
    )
    association.update_parameters().set_calling_ae_title("STRANGER").set_called_ae_title("GATEWAY").set_presentation_contexts(
        [context]
    )
    association.associate()
    return association


def echo(port):
    association = associate(port, VERIFICATION)
    odil.EchoSCU(association).echo()
    association.release()


def store(port, *files):
    association = associate(port, CT)
    scu = odil.StoreSCU(association)
    for name in files:
        with odil.open(name) as stream:
            _, data_set = odil.Reader.read_file(stream)
        scu.set_affected_sop_class(data_set)
        scu.store(data_set)
    association.release()


def find(port, study):
    association = associate(port, STUDY_ROOT_FIND)
    query = odil.DataSet()
    query.add("QueryRetrieveLevel", ["STUDY"])
    query.add("StudyInstanceUID", [study])
    query.add("PatientID")
    scu = odil.FindSCU(association)
    scu.set_affected_sop_class(STUDY_ROOT_FIND)
    scu.find(query)
    association.release()


if __name__ == "__main__":
    {"echo": echo, "store": store, "find": find}[sys.argv[2]](int(sys.argv[1]), *sys.argv[3:])
